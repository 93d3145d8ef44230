output "client_id" {
  description = "operator.arm.clientId of the chart, or agent.arm.clientId."
  value       = azurerm_user_assigned_identity.azvnet.client_id
}

output "tenant_id" {
  description = "operator.arm.tenantId of the chart."
  value       = azurerm_user_assigned_identity.azvnet.tenant_id
}

output "identity_id" {
  description = "For az vm identity assign --identities."
  value       = azurerm_user_assigned_identity.azvnet.id
}
