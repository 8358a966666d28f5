package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Echo is what the backend saw of a request.
type Echo struct {
	Backend string            `json:"backend"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Host    string            `json:"host"`
	Body    int64             `json:"body"`
	Headers map[string]string `json:"headers"`
}

// Whether one of these arrives, and with which value, is what tests ask.
var shown = []string{
	"x-domain-id", "x-domain-slug", "x-user-id", "x-pat-id", "x-auth-operation", "x-auth-model",
	"x-upstream-cluster", "authorization", "cookie", "x-api-key",
	// By these, some software takes a request for another one.
	"forwarded", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-user", "x-original-url",
	"x-rewrite-url", "x-http-method-override", "x-remote-user", "x-tenant-id", "x-user",
	"x_user_id",
}

// By this header, a client says for how many milliseconds the backend waits before it answers.
const takes = "takes-ms"

func backend(address, name string) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		length, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		// A model takes its time.
		if milliseconds, err := strconv.Atoi(r.Header.Get(takes)); err == nil {
			time.Sleep(time.Duration(milliseconds) * time.Millisecond)
		}
		echo := Echo{name, r.Method, r.URL.Path, r.Host, length, map[string]string{}}
		for _, header := range shown {
			if values := r.Header.Values(header); len(values) > 0 {
				echo.Headers[header] = strings.Join(values, ",")
			}
		}
		w.Header().Set("content-type", "application/json")
		// An error means that the client has gone.
		_ = json.NewEncoder(w).Encode(echo)
	})
	server := &http.Server{Addr: address, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}
