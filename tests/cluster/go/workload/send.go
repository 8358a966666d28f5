package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Sent is a request of `workload send`. It comes by standard input, so no token is in an argument.
type Sent struct {
	// The address of the gateway, such as `gateway.default:80`.
	To string `json:"to"`
	// Whether by TLS. The gateway's certificate is not verified.
	TLS bool `json:"tls"`
	// 1 or 2; without TLS, the client knows beforehand that the server speaks HTTP/2.
	HTTP   int    `json:"http"`
	Method string `json:"method"`
	// The path as it is sent, by HTTP/1.1 without any check.
	Path    string      `json:"path"`
	Host    string      `json:"host"`
	Headers [][2]string `json:"headers"`
	// The letters `PAD` are replaced by as many `x` as `pad` says.
	Body string `json:"body"`
	Pad  int    `json:"pad"`
	// In milliseconds.
	Timeout int `json:"timeout"`
}

// Answered is what came back. The error is empty if that was an HTTP response.
type Answered struct {
	Status  int         `json:"status"`
	Headers http.Header `json:"headers"`
	Body    string      `json:"body"`
	Error   string      `json:"error"`
	// Milliseconds until the response was complete.
	Took int64 `json:"took"`
}

// So many are under way at the same time.
const sendAtATime = 8

// An answer is printed up to this length.
const shownBody = 16 << 10

func send() error {
	var requests []Sent
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		return err
	}
	answers := make([]Answered, len(requests))
	free := make(chan struct{}, sendAtATime)
	var running sync.WaitGroup
	for number := range requests {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			answers[number] = requests[number].send()
		})
	}
	running.Wait()
	return printed(answers)
}

func (sent *Sent) send() Answered {
	began := time.Now()
	answer, err := sent.answer()
	if err != nil {
		answer.Error = err.Error()
	}
	answer.Took = time.Since(began).Milliseconds()
	return answer
}

func (sent *Sent) answer() (Answered, error) {
	timeout := time.Duration(sent.Timeout) * time.Millisecond
	config := &tls.Config{InsecureSkipVerify: true, ServerName: sent.Host}
	body := strings.Replace(sent.Body, "PAD", strings.Repeat("x", sent.Pad), 1)
	var response *http.Response
	var err error
	if sent.HTTP == 2 {
		response, err = sent.http2(body, config, timeout)
	} else {
		response, err = sent.http1(body, config, timeout)
	}
	if err != nil {
		return Answered{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, shownBody))
	return Answered{Status: response.StatusCode, Headers: response.Header, Body: string(text)}, err
}

// http1 writes the request as it is described. Go's own client would refuse or repair some.
func (sent *Sent) http1(body string, config *tls.Config, timeout time.Duration) (*http.Response, error) {
	connection, err := net.DialTimeout("tcp", sent.To, timeout)
	if err != nil {
		return nil, err
	}
	_ = connection.SetDeadline(time.Now().Add(timeout))
	if sent.TLS {
		connection = tls.Client(connection, config)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nhost: %s\r\n", sent.Method, sent.Path, sent.Host)
	for _, header := range sent.Headers {
		fmt.Fprintf(&head, "%s: %s\r\n", header[0], header[1])
	}
	if body != "" {
		fmt.Fprintf(&head, "content-length: %d\r\n", len(body))
	}
	head.WriteString("\r\n")
	// A server that refuses a body answers before it has read all of it, so the answer is read
	// meanwhile.
	go func() {
		_, _ = io.WriteString(connection, head.String())
		_, _ = io.WriteString(connection, body)
	}()
	response, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: sent.Method})
	if err != nil {
		connection.Close()
		return nil, err
	}
	response.Body = connectionBody{response.Body, connection}
	return response, nil
}

// connectionBody closes the connection with the body.
type connectionBody struct {
	io.ReadCloser
	connection net.Conn
}

func (body connectionBody) Close() error {
	return body.connection.Close()
}

func (sent *Sent) http2(body string, config *tls.Config, timeout time.Duration) (*http.Response, error) {
	protocols := new(http.Protocols)
	scheme := "http"
	if sent.TLS {
		scheme = "https"
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	client := &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Protocols: protocols, TLSClientConfig: config, DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	request, err := http.NewRequest(sent.Method, scheme+"://"+sent.To, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(sent.Path, "?")
	request.URL = &url.URL{
		Scheme: scheme, Host: sent.To, Path: path, RawPath: path, RawQuery: query,
	}
	if body == "" {
		request.Body = http.NoBody
	}
	request.Host = sent.Host
	for _, header := range sent.Headers {
		request.Header.Add(header[0], header[1])
	}
	return client.Do(request)
}
