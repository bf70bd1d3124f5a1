// Connects twenty times with each version of TLS, one request on each connection: go run resume.go PORT CA-FILE.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(os.Args[2])))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{
			ServerName: "localhost", RootCAs: pool, MinVersion: version, MaxVersion: version,
			ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		for i := 0; i < 20; i++ {
			connection := must(tls.Dial("tcp", "127.0.0.1:"+os.Args[1], config))
			fmt.Fprintf(connection, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
			response := must(http.ReadResponse(bufio.NewReader(connection), nil))
			must(io.Copy(io.Discard, response.Body))
			if response.StatusCode != 200 {
				panic(response.Status)
			}
			connection.Close()
		}
	}
}
