// Command criclient speaks to a container runtime through the Container Runtime Interface, as the
// kubelet does, for tests: one call per invocation, one JSON document on stdout, exit code 1 and
// {"error": ..., "code": ...} when the runtime refuses.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const defaultSocket = "/run/containerd/containerd.sock"

// A call is one connection to the runtime with what was asked of it.
type call struct {
	ctx     context.Context
	runtime runtime.RuntimeServiceClient
	images  runtime.ImageServiceClient
	args    []string
}

// A command returns the document to print.
type command struct {
	usage string
	run   func(*call) (any, error)
}

var commands = map[string]command{
	"version":          {"", runVersion},
	"status":           {"", runStatus},
	"run-pod":          {"--name NAME [--namespace NS] [--uid UID] [--host-port [IP:]HOST:POD[/PROTO]]... [...]", runPod},
	"stop-pod":         {"POD-ID", stopPod},
	"rm-pod":           {"POD-ID", removePod},
	"list":             {"", listPods},
	"pod-status":       {"POD-ID", podStatus},
	"create-container": {"--image IMAGE [--name NAME] POD-ID COMMAND [ARG]... | --config FILE POD-ID", createContainer},
	"container-status": {"CONTAINER-ID", containerStatus},
	"start-container":  {"CONTAINER-ID", startContainer},
	"exec":             {"[--timeout SECONDS] CONTAINER-ID COMMAND [ARG]...", execSync},
	"stop-container":   {"[--grace SECONDS] CONTAINER-ID", stopContainer},
	"rm-container":     {"CONTAINER-ID", removeContainer},
	"containers":       {"", listContainers},
	"image-status":     {"IMAGE", imageStatus},
}

// A usageError is the caller's mistake: exit code 2.
type usageError struct{ error }

func misuse(format string, values ...any) error {
	return usageError{fmt.Errorf(format, values...)}
}

func usage(out io.Writer) {
	fmt.Fprintf(out, "usage: criclient [--socket PATH] [--deadline SECONDS] COMMAND ...\n\n")
	names := make([]string, 0, len(commands))
	for name := range commands {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Fprintf(out, "  %-17s %s\n", name, commands[name].usage)
	}
}

func perform(arguments []string) (any, error) {
	flags := flag.NewFlagSet("criclient", flag.ContinueOnError)
	socket := flags.String("socket", defaultSocket, "socket of the runtime")
	deadline := flags.Float64("deadline", 120, "seconds after which the call is given up")
	flags.Usage = func() { usage(flags.Output()) }
	if err := flags.Parse(arguments); err != nil {
		return nil, usageError{err}
	}
	if flags.NArg() == 0 {
		return nil, misuse("no command; see criclient --help")
	}
	chosen, known := commands[flags.Arg(0)]
	if !known {
		return nil, misuse("unknown command %q; see criclient --help", flags.Arg(0))
	}
	connection, err := grpc.NewClient("unix:"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(*deadline*float64(time.Second)))
	defer cancel()
	return chosen.run(&call{
		ctx:     ctx,
		runtime: runtime.NewRuntimeServiceClient(connection),
		images:  runtime.NewImageServiceClient(connection),
		args:    flags.Args()[1:],
	})
}

func main() {
	document, err := perform(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	code := 0
	if err != nil {
		code = 1
		var mistake usageError
		if errors.As(err, &mistake) {
			code = 2
		}
		document = map[string]string{"error": status.Convert(err).Message(), "code": status.Code(err).String()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(document); err != nil {
		fmt.Fprintln(os.Stderr, "criclient: cannot write the answer:", err)
		code = 1
	}
	os.Exit(code)
}
