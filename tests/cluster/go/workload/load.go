package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Load is the file that describes a load.
type Load struct {
	URL string `json:"url"`
	// Workers, each with one request at a time and a connection that is kept.
	Workers int `json:"workers"`
	// Requests per second of all workers together. A worker that falls behind sends at once.
	Rate float64 `json:"rate"`
	// Seconds after which the load ends by itself.
	Limit float64 `json:"limit"`
	// Seconds after which a request counts as failed.
	Timeout  float64   `json:"timeout"`
	Requests []Request `json:"requests"`
}

// Request is sent in turn with the others of its load.
type Request struct {
	Name          string `json:"name"`
	Method        string `json:"method"`
	Path          string `json:"path"`
	Authorization string `json:"authorization"`
	Body          string `json:"body"`
	Status        int    `json:"status"`
	// Milliseconds for which the backend waits before it answers.
	Takes int `json:"takes"`
	// Headers that the backend must have seen, with their values. Only for requests that pass.
	Seen map[string]string `json:"seen"`
}

// control is where `count` and `end` reach the load of the same container.
const control = "127.0.0.1:8099"

func load(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var load Load
	if err := json.Unmarshal(text, &load); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if load.Workers < 1 || load.Rate <= 0 || load.Limit <= 0 || load.Timeout <= 0 || len(load.Requests) == 0 {
		return fmt.Errorf("%s: workers, rate, limit, timeout and requests must be set", file)
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, seconds(load.Limit))
	defer cancel()

	tally := newTally()
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/count", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(tally.result())
	})
	mux.HandleFunc("/end", func(http.ResponseWriter, *http.Request) { cancel() })
	go func() { _ = http.Serve(listener, mux) }()

	var workers sync.WaitGroup
	for number := range load.Workers {
		workers.Go(func() { load.work(ctx, number, tally) })
	}
	workers.Wait()
	return printed(tally.result())
}

// work sends every `Workers`-th request of the load.
func (l *Load) work(ctx context.Context, number int, tally *Tally) {
	// A connection of its own, which fails with its server.
	client := &http.Client{Transport: &http.Transport{}, Timeout: seconds(l.Timeout)}
	every := seconds(float64(l.Workers) / l.Rate)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	// Workers begin with different requests, one after another.
	if !wait(ctx, time.After(every*time.Duration(number)/time.Duration(l.Workers))) {
		return
	}
	for turn := number; ; turn++ {
		request := &l.Requests[turn%len(l.Requests)]
		began := time.Now()
		// A request that has begun ends: what the end of the load cuts off says nothing.
		tally.add(request.send(client, l.URL), time.Since(began))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func wait(ctx context.Context, until <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-until:
		return true
	}
}

// send returns what is not as expected, or nil.
func (r *Request) send(client *http.Client, url string) *Outcome {
	outcome := &Outcome{Time: time.Now().UTC(), Request: r.Name, Kind: "failed"}
	request, err := http.NewRequest(r.Method, url+r.Path, strings.NewReader(r.Body))
	if err != nil {
		outcome.Error = err.Error()
		return outcome
	}
	if r.Authorization != "" {
		request.Header.Set("authorization", r.Authorization)
	}
	if r.Takes > 0 {
		request.Header.Set(takes, strconv.Itoa(r.Takes))
	}
	if r.Body != "" {
		request.Header.Set("content-type", "application/json")
		// Go's client would send a request again whose connection has ended. A test counts that.
		request.GetBody = nil
	}
	answer, err := client.Do(request)
	if err != nil {
		outcome.Error = bare(err)
		return outcome
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	outcome.Status, outcome.Body = answer.StatusCode, string(body)
	if err != nil {
		outcome.Error = bare(err)
		return outcome
	}
	if answer.StatusCode != r.Status {
		if answer.StatusCode/100 == 2 {
			outcome.Kind = "wrongly allowed"
		}
		return outcome
	}
	if len(r.Seen) > 0 {
		var echo Echo
		if err := json.Unmarshal(bytes.TrimSpace(body), &echo); err != nil {
			outcome.Error = err.Error()
			return outcome
		}
		for header, value := range r.Seen {
			if echo.Headers[header] != value {
				outcome.Kind = "wrong identity"
				outcome.Error = fmt.Sprintf("%s is %q, expected %q", header, echo.Headers[header], value)
				return outcome
			}
		}
	}
	return nil
}

// bare leaves the URL out, which each message would repeat.
func bare(err error) string {
	var wrapped interface{ Unwrap() error }
	if errors.As(err, &wrapped) && wrapped.Unwrap() != nil {
		return wrapped.Unwrap().Error()
	}
	return err.Error()
}

func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}
