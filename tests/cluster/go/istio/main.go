// istiod, and the agent that starts an Envoy in a pod, in one program, which its name tells apart.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	meshconfig "istio.io/api/mesh/v1alpha1"
	agent "istio.io/istio/pilot/cmd/pilot-agent/app"
	discovery "istio.io/istio/pilot/cmd/pilot-discovery/app"
	istioagent "istio.io/istio/pkg/istio-agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/sds"
)

func main() {
	log.EnableKlogWithCobra()
	var command *cobra.Command
	switch name := filepath.Base(os.Args[0]); name {
	case "pilot-discovery":
		command = discovery.NewRootCommand()
	case "pilot-agent":
		command = agent.NewRootCommand(secrets)
	default:
		fmt.Fprintf(os.Stderr, "%s: call this program as pilot-discovery or pilot-agent\n", name)
		os.Exit(2)
	}
	if err := command.Execute(); err != nil {
		log.Error(err)
		os.Exit(1)
	}
}

func secrets(options *security.Options, cache security.SecretManager, keys *meshconfig.PrivateKeyProvider) istioagent.SDSService {
	return sds.NewServer(options, cache, keys)
}
