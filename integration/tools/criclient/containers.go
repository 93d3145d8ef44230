package main

import (
	"flag"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func createContainer(c *call) (any, error) {
	flags := flag.NewFlagSet("create-container", flag.ContinueOnError)
	image := flags.String("image", "", "image, already in the runtime's store")
	name := flags.String("name", "main", "name of the container")
	logPath := flags.String("log-path", "", "its log, below the pod's --log-directory")
	configuration := flags.String("config", "", "the whole ContainerConfig of the CRI, as a JSON file, instead")
	if err := flags.Parse(c.args); err != nil {
		return nil, usageError{err}
	}
	config := &runtime.ContainerConfig{
		Metadata: &runtime.ContainerMetadata{Name: *name},
		Image:    &runtime.ImageSpec{Image: *image},
		LogPath:  *logPath,
		Linux:    &runtime.LinuxContainerConfig{},
	}
	switch {
	case *configuration != "" && *image == "" && flags.NArg() == 1:
		if err := readConfiguration(*configuration, config); err != nil {
			return nil, err
		}
	case *configuration == "" && *image != "" && flags.NArg() >= 2:
		config.Command = flags.Args()[1:]
	default:
		return nil, misuse("create-container wants --image IMAGE POD-ID COMMAND [ARG]..., or --config FILE POD-ID")
	}
	id := flags.Arg(0)
	// A runtime wants the pod's configuration again with each container, as the kubelet gives it.
	_, info, err := inspectPod(c, id)
	if err != nil {
		return nil, err
	}
	answer, err := c.runtime.CreateContainer(c.ctx, &runtime.CreateContainerRequest{
		PodSandboxId:  id,
		SandboxConfig: info.Config,
		Config:        config,
	})
	if err != nil {
		return nil, err
	}
	return map[string]string{"id": answer.ContainerId, "pod": id}, nil
}

func startContainer(c *call) (any, error) {
	id, err := c.one("the container's id")
	if err != nil {
		return nil, err
	}
	_, err = c.runtime.StartContainer(c.ctx, &runtime.StartContainerRequest{ContainerId: id})
	return map[string]string{"started": id}, err
}

func execSync(c *call) (any, error) {
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	timeout := flags.Int64("timeout", 30, "seconds after which the command is killed")
	if err := flags.Parse(c.args); err != nil {
		return nil, usageError{err}
	}
	if flags.NArg() < 2 {
		return nil, misuse("exec wants CONTAINER-ID COMMAND [ARG]...")
	}
	answer, err := c.runtime.ExecSync(c.ctx, &runtime.ExecSyncRequest{
		ContainerId: flags.Arg(0), Cmd: flags.Args()[1:], Timeout: *timeout})
	if err != nil {
		return nil, err
	}
	return map[string]any{"stdout": string(answer.Stdout), "stderr": string(answer.Stderr),
		"exit_code": answer.ExitCode}, nil
}

func stopContainer(c *call) (any, error) {
	flags := flag.NewFlagSet("stop-container", flag.ContinueOnError)
	grace := flags.Int64("grace", 0, "seconds between SIGTERM and SIGKILL")
	if err := flags.Parse(c.args); err != nil {
		return nil, usageError{err}
	}
	if flags.NArg() != 1 {
		return nil, misuse("stop-container wants CONTAINER-ID")
	}
	_, err := c.runtime.StopContainer(c.ctx, &runtime.StopContainerRequest{ContainerId: flags.Arg(0), Timeout: *grace})
	return map[string]string{"stopped": flags.Arg(0)}, err
}

func removeContainer(c *call) (any, error) {
	id, err := c.one("the container's id")
	if err != nil {
		return nil, err
	}
	_, err = c.runtime.RemoveContainer(c.ctx, &runtime.RemoveContainerRequest{ContainerId: id})
	return map[string]string{"removed": id}, err
}

func listContainers(c *call) (any, error) {
	if len(c.args) != 0 {
		return nil, misuse("containers takes no argument")
	}
	answer, err := c.runtime.ListContainers(c.ctx, &runtime.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	containers := []map[string]string{}
	for _, found := range answer.Containers {
		containers = append(containers, map[string]string{"id": found.Id, "pod": found.PodSandboxId,
			"name": found.Metadata.Name, "state": state("CONTAINER_", found.State)})
	}
	return map[string]any{"containers": containers}, nil
}

func containerStatus(c *call) (any, error) {
	id, err := c.one("the container's id")
	if err != nil {
		return nil, err
	}
	answer, err := c.runtime.ContainerStatus(c.ctx, &runtime.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return nil, err
	}
	found := answer.Status
	return map[string]any{"state": state("CONTAINER_", found.State), "exit_code": found.ExitCode,
		"reason": found.Reason, "message": found.Message}, nil
}

func imageStatus(c *call) (any, error) {
	image, err := c.one("the image's name")
	if err != nil {
		return nil, err
	}
	answer, err := c.images.ImageStatus(c.ctx, &runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: image}})
	if err != nil {
		return nil, err
	}
	found := answer.GetImage()
	if found == nil {
		return map[string]any{"present": false}, nil
	}
	return map[string]any{"present": true, "id": found.Id, "tags": found.RepoTags, "size": found.Size}, nil
}
