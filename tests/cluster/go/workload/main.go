// Workload is what surrounds patgate in the cluster tests: a backend, a generator of load, and a
// client for single requests. It is one static program, because its image holds nothing else.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

const usage = `usage:
  workload backend ADDRESS NAME    answers each request with what arrived, as JSON
  workload load FILE               sends the requests that FILE describes; ends by SIGTERM or its limit
  workload count                   prints what the load of this container has counted so far
  workload end                     ends the load of this container
  workload get URL [HEADER…]       sends one request, and prints the answer as JSON
  workload send                    sends the requests that standard input describes, and prints the answers
  workload peer ADDRESS NAME [CERTIFICATE KEY]
                                   prints the serial number of the certificate of a TLS server`

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no mode is named\n%s", usage)
	}
	mode, rest := args[0], args[1:]
	switch {
	case mode == "backend" && len(rest) == 2:
		return backend(rest[0], rest[1])
	case mode == "load" && len(rest) == 1:
		return load(rest[0])
	case mode == "count" && len(rest) == 0:
		return ask("count")
	case mode == "end" && len(rest) == 0:
		return ask("end")
	case mode == "get" && len(rest) >= 1:
		return get(rest[0], rest[1:])
	case mode == "send" && len(rest) == 0:
		return send()
	case mode == "peer" && (len(rest) == 2 || len(rest) == 4):
		return peer(rest)
	}
	return fmt.Errorf("these arguments name no mode: %q\n%s", args, usage)
}

func printed(value any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
