// Envoy Gateway's server, which also prepares the shutdown of its proxies.
package main

import (
	"fmt"
	"os"

	"github.com/envoyproxy/gateway/cmd/envoy-gateway/root"
	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := root.GetRootCommand(nil).ExecuteContext(ctrl.SetupSignalHandler()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
