// What azvnet needs in Azure to add and remove IP configurations: a role, an identity, and the role for that identity.
// With issuer: for the operator of a cluster. Without it: for provision.mode node; assign the identity to the machines.
targetScope = 'subscription'

@description('Resource group of the identity.')
param identityGroup string

@description('Region of the identity.')
param location string = deployment().location

@description('Resource groups of the NICs, and that of the virtual network.')
param groups string[]

@description('OIDC issuer of the cluster, for workload identity; empty: no federated credential is created.')
param issuer string = ''

@description('Namespace of the operator.')
param namespace string = 'kube-system'

@description('Service account of the operator.')
param serviceAccount string = 'azvnet-operator'

@description('Whether nodes are instances of Uniform scale sets.')
param uniform bool = false

@description('Further actions, for what NICs refer to: Microsoft.Network/networkSecurityGroups/join/action ...')
param joins string[] = []

var role = uniform ? loadJsonContent('../role-uniform.json') : loadJsonContent('../role.json')

resource definition 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, role.Name)
  properties: {
    roleName: role.Name
    description: role.Description
    type: 'CustomRole'
    permissions: [
      {
        actions: union(role.Actions, joins)
        notActions: []
      }
    ]
    assignableScopes: [
      subscription().id
    ]
  }
}

module identity 'identity.bicep' = {
  name: 'azvnet-identity'
  scope: resourceGroup(identityGroup)
  params: {
    location: location
    issuer: issuer
    namespace: namespace
    serviceAccount: serviceAccount
  }
}

module assignments 'assignment.bicep' = [for group in groups: {
  name: 'azvnet-${uniqueString(group)}'
  scope: resourceGroup(group)
  params: {
    roleId: definition.id
    principalId: identity.outputs.principalId
  }
}]

@description('operator.arm.clientId of the chart, or agent.arm.clientId.')
output clientId string = identity.outputs.clientId

@description('operator.arm.tenantId of the chart.')
output tenantId string = identity.outputs.tenantId

@description('For az vm identity assign --identities.')
output identityId string = identity.outputs.identityId
