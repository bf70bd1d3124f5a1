"""Tornado's client: it sends each text twice, compressed, waits for it to come back, and prints what it has seen as JSON.

The second time is compressed with what the first has left in the client's window, whatever the server has answered: Tornado looks at its own
options alone. Usage: deflate-client.py URL
"""

import asyncio
import json
import sys

from tornado.websocket import websocket_connect


async def main(url):
    socket = await websocket_connect(url, compression_options={})
    text = "".join(f'{{"id":{i},"name":"user {i * 7919 % 1000}"}}' for i in range(400))
    wrong = []
    for i, sent in enumerate([text, text, "", "ö" * 3000, text + text, text]):
        await socket.write_message(sent)
        heard = await socket.read_message()
        if heard != sent:
            wrong.append(i)
            break
    print(json.dumps({
        "wrong": wrong,
        "extensions": socket.headers.get("Sec-WebSocket-Extensions", ""),
        "close": [socket.close_code, socket.close_reason],
    }))


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
