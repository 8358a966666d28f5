package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const patience = 10 * time.Second

// The preface of a client, with an empty frame of settings.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

func ask(what string) error {
	client := &http.Client{Timeout: patience}
	answer, err := client.Get("http://" + control + "/" + what)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}

// get sends GET with headers such as `accept: text/html`. A value `@FILE` is read from the file, so
// that no token is in an argument.
func get(url string, headers []string) error {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for _, header := range headers {
		name, value, found := strings.Cut(header, ": ")
		if !found {
			return fmt.Errorf("%q is no header", header)
		}
		if file, named := strings.CutPrefix(value, "@"); named {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			value = strings.TrimSpace(string(text))
		}
		if name == "host" {
			request.Host = value
			continue
		}
		request.Header.Add(name, value)
	}
	client := &http.Client{
		Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return printed(map[string]any{
		"status": answer.StatusCode, "headers": answer.Header, "body": string(body),
	})
}

// peer verifies nothing: it says which certificate a server shows.
func peer(args []string) error {
	config := &tls.Config{
		InsecureSkipVerify: true, ServerName: args[1], NextProtos: []string{"h2"},
	}
	if len(args) == 4 {
		certificate, err := tls.LoadX509KeyPair(args[2], args[3])
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	dialer := &net.Dialer{Timeout: patience}
	connection, err := tls.DialWithDialer(dialer, "tcp", args[0], config)
	if err != nil {
		return err
	}
	defer connection.Close()
	// With TLS 1.3, a server that refuses the client's certificate says so after the handshake. If it
	// accepts it, an HTTP/2 server speaks when it has been spoken to.
	if _, err := connection.Write([]byte(http2Preface)); err != nil {
		return err
	}
	_ = connection.SetReadDeadline(time.Now().Add(patience))
	if _, err := connection.Read(make([]byte, 1)); err != nil {
		return err
	}
	shown := connection.ConnectionState().PeerCertificates[0]
	return printed(map[string]string{"serial": shown.SerialNumber.String()})
}
