# What azvnet needs in Azure to add and remove IP configurations: a role, an identity, and the role for that identity.
# With issuer: for the operator of a cluster. Without it: for provision.mode node; assign the identity to the machines.

terraform {
  required_version = ">= 1.3"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 4.0"
    }
  }
}

provider "azurerm" {
  features {}
  subscription_id = var.subscription
}

locals {
  role  = jsondecode(file("${path.module}/../${var.uniform ? "role-uniform" : "role"}.json"))
  scope = "/subscriptions/${var.subscription}"
}

resource "azurerm_role_definition" "azvnet" {
  name              = local.role.Name
  description       = local.role.Description
  scope             = local.scope
  assignable_scopes = [local.scope]

  permissions {
    actions     = distinct(concat(local.role.Actions, var.joins))
    not_actions = []
  }
}

resource "azurerm_user_assigned_identity" "azvnet" {
  name                = "azvnet"
  resource_group_name = var.identity_group
  location            = var.location
}

resource "azurerm_federated_identity_credential" "operator" {
  count = var.issuer == "" ? 0 : 1

  name                = "azvnet-operator"
  resource_group_name = var.identity_group
  parent_id           = azurerm_user_assigned_identity.azvnet.id
  issuer              = var.issuer
  subject             = "system:serviceaccount:${var.namespace}:${var.service_account}"
  audience            = ["api://AzureADTokenExchange"]
}

resource "azurerm_role_assignment" "azvnet" {
  for_each = toset(var.groups)

  scope              = "${local.scope}/resourceGroups/${each.value}"
  role_definition_id = azurerm_role_definition.azvnet.role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.azvnet.principal_id
  principal_type     = "ServicePrincipal"
}
