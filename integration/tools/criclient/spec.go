package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// list collects a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// sandboxConfig reads a pod's specification from flags.
func sandboxConfig(arguments []string) (*runtime.PodSandboxConfig, error) {
	flags := flag.NewFlagSet("run-pod", flag.ContinueOnError)
	name := flags.String("name", "", "name of the pod")
	namespace := flags.String("namespace", "default", "its namespace")
	uid := flags.String("uid", "", "its UID; default: namespace-name")
	attempt := flags.Uint("attempt", 0, "how often the sandbox was created before")
	cgroupParent := flags.String("cgroup-parent", "", "cgroup to put the pod in")
	logDirectory := flags.String("log-directory", "", "folder of the containers' logs")
	hostNetwork := flags.Bool("host-network", false, "no network namespace of its own")
	var hostPorts, annotations, labels, servers, searches, options list
	flags.Var(&hostPorts, "host-port", "[IP:]HOST:POD[/tcp|udp|sctp]; repeatable")
	flags.Var(&annotations, "annotation", "KEY=VALUE; repeatable (kubernetes.io/ingress-bandwidth=10M)")
	flags.Var(&labels, "label", "KEY=VALUE; repeatable")
	flags.Var(&servers, "dns-server", "address; repeatable")
	flags.Var(&searches, "dns-search", "domain; repeatable")
	flags.Var(&options, "dns-option", "option of resolv.conf; repeatable")
	if err := flags.Parse(arguments); err != nil {
		return nil, usageError{err}
	}
	if *name == "" || flags.NArg() != 0 {
		return nil, misuse("run-pod wants --name NAME and flags only")
	}
	if *uid == "" {
		*uid = *namespace + "-" + *name
	}
	config := &runtime.PodSandboxConfig{
		Metadata:     &runtime.PodSandboxMetadata{Name: *name, Namespace: *namespace, Uid: *uid, Attempt: uint32(*attempt)},
		Hostname:     *name,
		LogDirectory: *logDirectory,
		DnsConfig:    &runtime.DNSConfig{Servers: servers, Searches: searches, Options: options},
		Linux:        &runtime.LinuxPodSandboxConfig{CgroupParent: *cgroupParent},
	}
	if *hostNetwork {
		config.Hostname = "" // it is the host's
		config.Linux.SecurityContext = &runtime.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtime.NamespaceOption{Network: runtime.NamespaceMode_NODE}}
	}
	var err error
	if config.Annotations, err = pairs(annotations); err != nil {
		return nil, err
	}
	if config.Labels, err = pairs(labels); err != nil {
		return nil, err
	}
	for _, text := range hostPorts {
		mapping, err := portMapping(text)
		if err != nil {
			return nil, err
		}
		config.PortMappings = append(config.PortMappings, mapping)
	}
	return config, nil
}

// readConfiguration reads a message of the CRI from a JSON file; an unknown key is an error.
func readConfiguration(path string, into any) error {
	file, err := os.Open(path)
	if err != nil {
		return usageError{err}
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return misuse("%s: %v", path, err)
	}
	return nil
}

func pairs(texts []string) (map[string]string, error) {
	found := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, given := strings.Cut(text, "=")
		if !given || key == "" {
			return nil, misuse("%q is not KEY=VALUE", text)
		}
		found[key] = value
	}
	return found, nil
}

// portMapping reads [IP:]HOST:POD[/PROTOCOL]; an IPv6 address keeps its colons.
func portMapping(text string) (*runtime.PortMapping, error) {
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		protocol = "tcp"
	}
	number, known := runtime.Protocol_value[strings.ToUpper(protocol)]
	if !known {
		return nil, misuse("host port %q: unknown protocol %q", text, protocol)
	}
	parts := strings.Split(ports, ":")
	if len(parts) < 2 {
		return nil, misuse("host port %q is not [IP:]HOST:POD[/PROTOCOL]", text)
	}
	numbers := make([]int32, 2)
	for i, part := range parts[len(parts)-2:] {
		port, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return nil, misuse("host port %q: %v", text, err)
		}
		numbers[i] = int32(port)
	}
	return &runtime.PortMapping{
		Protocol:      runtime.Protocol(number),
		HostIp:        strings.Join(parts[:len(parts)-2], ":"),
		HostPort:      numbers[0],
		ContainerPort: numbers[1],
	}, nil
}

// one takes the single argument that a command wants.
func (c *call) one(what string) (string, error) {
	if len(c.args) != 1 || c.args[0] == "" {
		return "", misuse("expected exactly one argument, %s", what)
	}
	return c.args[0], nil
}

func state(prefix string, value fmt.Stringer) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}
