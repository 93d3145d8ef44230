variable "subscription" {
  description = "Id of the subscription of the nodes."
  type        = string
}

variable "identity_group" {
  description = "Resource group of the identity."
  type        = string
}

variable "location" {
  description = "Region of the identity."
  type        = string
}

variable "groups" {
  description = "Resource groups of the NICs, and that of the virtual network."
  type        = list(string)
}

variable "issuer" {
  description = "OIDC issuer of the cluster, for workload identity; empty: no federated credential is created."
  type        = string
  default     = ""
}

variable "namespace" {
  description = "Namespace of the operator."
  type        = string
  default     = "kube-system"
}

variable "service_account" {
  description = "Service account of the operator."
  type        = string
  default     = "azvnet-operator"
}

variable "uniform" {
  description = "Whether nodes are instances of Uniform scale sets."
  type        = bool
  default     = false
}

variable "joins" {
  description = "Further actions, for what NICs refer to: Microsoft.Network/networkSecurityGroups/join/action ..."
  type        = list(string)
  default     = []
}
