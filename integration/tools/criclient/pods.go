package main

import (
	"encoding/json"
	"fmt"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func runVersion(c *call) (any, error) {
	answer, err := c.runtime.Version(c.ctx, &runtime.VersionRequest{})
	if err != nil {
		return nil, err
	}
	return map[string]string{"runtime": answer.RuntimeName, "version": answer.RuntimeVersion,
		"api": answer.RuntimeApiVersion}, nil
}

type condition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func runStatus(c *call) (any, error) {
	answer, err := c.runtime.Status(c.ctx, &runtime.StatusRequest{})
	if err != nil {
		return nil, err
	}
	conditions := []condition{}
	for _, found := range answer.GetStatus().GetConditions() {
		conditions = append(conditions, condition{found.Type, found.Status, found.Reason, found.Message})
	}
	return map[string]any{"conditions": conditions}, nil
}

func runPod(c *call) (any, error) {
	config, err := sandboxConfig(c.args)
	if err != nil {
		return nil, err
	}
	answer, err := c.runtime.RunPodSandbox(c.ctx, &runtime.RunPodSandboxRequest{Config: config})
	if err != nil {
		return nil, err
	}
	return describePod(c, answer.PodSandboxId)
}

func stopPod(c *call) (any, error) {
	id, err := c.one("the pod's id")
	if err != nil {
		return nil, err
	}
	_, err = c.runtime.StopPodSandbox(c.ctx, &runtime.StopPodSandboxRequest{PodSandboxId: id})
	return map[string]string{"stopped": id}, err
}

func removePod(c *call) (any, error) {
	id, err := c.one("the pod's id")
	if err != nil {
		return nil, err
	}
	_, err = c.runtime.RemovePodSandbox(c.ctx, &runtime.RemovePodSandboxRequest{PodSandboxId: id})
	return map[string]string{"removed": id}, err
}

type pod struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	UID       string   `json:"uid"`
	State     string   `json:"state"`
	IPs       []string `json:"ips,omitempty"`
	Netns     string   `json:"netns,omitempty"`
	Pid       int      `json:"pid,omitempty"`
}

func listPods(c *call) (any, error) {
	if len(c.args) != 0 {
		return nil, misuse("list takes no argument")
	}
	answer, err := c.runtime.ListPodSandbox(c.ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	pods := []pod{}
	for _, found := range answer.Items {
		pods = append(pods, pod{ID: found.Id, Name: found.Metadata.Name, Namespace: found.Metadata.Namespace,
			UID: found.Metadata.Uid, State: state("SANDBOX_", found.State)})
	}
	return map[string]any{"pods": pods}, nil
}

func podStatus(c *call) (any, error) {
	id, err := c.one("the pod's id")
	if err != nil {
		return nil, err
	}
	return describePod(c, id)
}

// sandboxInfo is the part of containerd's verbose answer that is of use here. The namespace's path
// stands in the OCI specification of the sandbox container.
type sandboxInfo struct {
	Pid         int                       `json:"pid"`
	Config      *runtime.PodSandboxConfig `json:"config"`
	RuntimeSpec struct {
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

func inspectPod(c *call, id string) (*runtime.PodSandboxStatus, *sandboxInfo, error) {
	answer, err := c.runtime.PodSandboxStatus(c.ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
	if err != nil {
		return nil, nil, err
	}
	info := &sandboxInfo{}
	if text, given := answer.Info["info"]; given {
		if err := json.Unmarshal([]byte(text), info); err != nil {
			return nil, nil, fmt.Errorf("the runtime's verbose status of pod %s: %w", id, err)
		}
	}
	return answer.Status, info, nil
}

func describePod(c *call, id string) (any, error) {
	found, info, err := inspectPod(c, id)
	if err != nil {
		return nil, err
	}
	description := pod{ID: found.Id, Name: found.Metadata.Name, Namespace: found.Metadata.Namespace,
		UID: found.Metadata.Uid, State: state("SANDBOX_", found.State), Pid: info.Pid}
	if ip := found.GetNetwork().GetIp(); ip != "" {
		description.IPs = append(description.IPs, ip)
	}
	for _, additional := range found.GetNetwork().GetAdditionalIps() {
		description.IPs = append(description.IPs, additional.Ip)
	}
	for _, namespace := range info.RuntimeSpec.Linux.Namespaces {
		if namespace.Type == "network" {
			description.Netns = namespace.Path
		}
	}
	return description, nil
}
