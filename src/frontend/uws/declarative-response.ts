/**
 * DeclarativeResponse: a response described by instructions, given as a route handler in place of a function.
 *
 * Role: builds the instructions, with the same bytes as the original, and runs them. Up: index.ts exports the class, app.ts runs what
 * it is given as a handler. Down: request.ts and response.ts.
 *
 *   opcode 1 header           key, value: each a byte of length, then UTF-8
 *          2 body             stands for nothing yet, here as in the original
 *          3 query value, 4 header value, 6 parameter value     key as above
 *          5 text, 0 end      two bytes of length, low byte first, then UTF-8
 */
import type { HttpRequest } from './request.ts';
import type { HttpResponse } from './response.ts';

const opcode = { end: 0, header: 1, body: 2, queryValue: 3, headerValue: 4, text: 5, parameterValue: 6 } as const;

const keyBytesLimit = 0xff;
const textBytesLimit = 0xffff;

const encoder = new TextEncoder();

export class DeclarativeResponse {
  readonly instructions: number[] = [];

  writeHeader(key: string, value: string): this {
    return this.#append(opcode.header, keyBytesLimit, key, value);
  }

  writeBody(): this {
    return this.#append(opcode.body, 0);
  }

  writeQueryValue(key: string): this {
    return this.#append(opcode.queryValue, keyBytesLimit, key);
  }

  writeHeaderValue(key: string): this {
    return this.#append(opcode.headerValue, keyBytesLimit, key);
  }

  write(value: string): this {
    return this.#append(opcode.text, textBytesLimit, value);
  }

  writeParameterValue(key: string): this {
    return this.#append(opcode.parameterValue, keyBytesLimit, key);
  }

  /** ret: the handler */
  end(value?: string): ArrayBuffer {
    this.#append(opcode.end, textBytesLimit, value);
    return new Uint8Array(this.instructions).buffer;
  }

  #append(code: number, bytesLimit: number, ...texts: readonly (string | Uint8Array | undefined)[]): this {
    const { instructions } = this;
    instructions.push(code);
    for (const text of texts) {
      const bytes = text instanceof Uint8Array ? text : encoder.encode(text);
      // The original writes a length that is cut off, and instructions that cannot be read.
      if (bytes.length > bytesLimit) throw new RangeError(`a text of ${bytes.length} bytes is too long here: at most ${bytesLimit}`);
      instructions.push(bytes.length & 0xff);
      if (bytesLimit === textBytesLimit) instructions.push(bytes.length >> 8);
      for (const byte of bytes) instructions.push(byte);
    }
    return this;
  }
}

type Step = (response: HttpResponse, request: HttpRequest) => void;

/** The handler that instructions describe. Those after one that cannot be read, or after the end, are left out. */
export function declarativeHandler(instructions: ArrayBuffer): Step {
  const reader = new Reader(new Uint8Array(instructions.slice(0)));
  const steps: Step[] = [];
  for (let step = nextStep(reader); step !== undefined; step = reader.hasEnded ? undefined : nextStep(reader)) steps.push(step);
  return (response, request) => {
    for (const step of steps) step(response, request);
  };
}

/** ret: undefined when there is no further instruction, or none that can be read */
function nextStep(reader: Reader): Step | undefined {
  const code = reader.byte();
  switch (code) {
    case opcode.end: {
      const body = reader.text();
      reader.hasEnded = true;
      return body && ((response) => response.end(body));
    }
    case opcode.header: {
      const key = reader.key();
      const value = reader.key();
      return key && value && ((response) => response.writeHeader(key, value));
    }
    case opcode.body:
      return () => {};
    case opcode.queryValue: {
      const key = reader.key();
      return key && ((response, request) => response.write(request.getQuery(key) as string));
    }
    case opcode.headerValue: {
      const key = reader.key();
      return key && ((response, request) => response.write(Buffer.from(request.getHeader(key), 'latin1')));
    }
    case opcode.text: {
      const text = reader.text();
      return text && ((response) => response.write(text));
    }
    case opcode.parameterValue: {
      const key = reader.key();
      return key && ((response, request) => response.write(request.getParameter(key) as string));
    }
    default:
      return undefined;
  }
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;
  hasEnded = false;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  byte(): number | undefined {
    return this.#bytes[this.#at++];
  }

  key(): Uint8Array | undefined {
    return this.#take(this.byte());
  }

  text(): Uint8Array | undefined {
    const low = this.byte();
    const high = this.byte();
    return low === undefined || high === undefined ? undefined : this.#take(low | (high << 8));
  }

  #take(length: number | undefined): Uint8Array | undefined {
    if (length === undefined || this.#at + length > this.#bytes.length) return undefined;
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}
