# What the ACL token of a control-plane member (consul.token_file) needs, and no more:
#   consul acl policy create -name edgefleet -rules @policy.hcl
#   consul acl token create -policy-name edgefleet -description "member m1"

# It registers members and edge nodes, and removes them. Change these with consul.member_service and consul.node_service.
service "edgefleet-controlplane" {
  policy = "write"
}
service "edgefleet-edge" {
  policy = "write"
}

# It sees the instances of services that hosts have as origins (consul://web). Narrow it to the services that customers may
# name: what the token cannot read has no instances.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
