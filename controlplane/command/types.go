package command

import "fmt"

// Type numbers the commands. Append only.
type Type uint16

// The commands.
const (
	TypeClusterInit Type = iota + 1
	TypeMemberPut
	TypeMemberRemove
	TypeGroupPut
	TypeTenantPut
	TypeTenantDelete
	TypeTokenPut
	TypeTokenDelete
	TypeHostPut
	TypeHostDelete
	TypeHostObserve
	TypeRulePut
	TypeRuleDelete
	TypeJoinTokenPut
	TypeNodeEnrol
	TypeNodeRenew
	TypeNodePut
	TypeNodeRevoke
	TypeNodesReport
	TypeHeadsAdvance
	TypeChallengePut
	TypeChallengeDelete
	TypeOrderPut
	TypeCertificateCommit
	TypeEntryPut
	TypeEntryDelete
	TypeMemberJoin
	TypeHostPutConsul
	TypeOriginsResolve
	TypeLeaderTransfer
	TypeAuditSeal
	TypeAuditDrop
	TypeAuditCheckpoint
	TypeJoinTokensReap
	TypeUserPut
	TypeUserDelete
	TypeRolePut
	TypeRoleDelete
	TypeTokenIssue
	TypeTokensUsed
	TypeAccessPut
	TypeApprovalPut
	TypeApprovalDecide
	TypeApprovalFinish
	TypeSnapshotStage
	TypeClusterRestore
	TypeIncarnationStart
	TypeDrillPut
	TypeKeysExpire
	TypeNodeRotate
	TypeNodeLock
	TypeNodeUnlock
	TypeMemberRetire
	TypeKEKRotate
	TypeSecretsReseal
	TypeGroupRekey
	TypeOrderProgress
	TypeRenewalPlan
	TypeLockTake
	TypeLockRelease
	TypeRegionPut
	TypeDNSSetsPut
	TypeAuthorityObserve
	TypeHostRetire
	TypeOriginCertPut
	TypeOriginCertDelete
	TypeCertificateUpload
	TypeCertificateRemove
	TypeCertificateRenew
	TypeCertificateRevoke
	TypeRevocationPut
	TypeRulesImport
)

var names = map[Type]string{
	TypeClusterInit: "cluster_init", TypeMemberPut: "member_put", TypeMemberRemove: "member_remove", TypeGroupPut: "group_put",
	TypeTenantPut: "tenant_put", TypeTenantDelete: "tenant_delete", TypeTokenPut: "token_put", TypeTokenDelete: "token_delete",
	TypeHostPut: "host_put", TypeHostDelete: "host_delete", TypeHostObserve: "host_observe",
	TypeRulePut: "rule_put", TypeRuleDelete: "rule_delete", TypeJoinTokenPut: "join_token_put",
	TypeNodeEnrol: "node_enrol", TypeNodeRenew: "node_renew", TypeNodePut: "node_put", TypeNodeRevoke: "node_revoke",
	TypeNodesReport: "nodes_report", TypeHeadsAdvance: "heads_advance",
	TypeChallengePut: "challenge_put", TypeChallengeDelete: "challenge_delete",
	TypeOrderPut: "order_put", TypeCertificateCommit: "certificate_commit",
	TypeEntryPut: "entry_put", TypeEntryDelete: "entry_delete",
	TypeMemberJoin:    "member_join",
	TypeHostPutConsul: "host_put_consul", TypeOriginsResolve: "origins_resolve",
	TypeLeaderTransfer: "leader_transfer",
	TypeAuditSeal:      "audit_seal", TypeAuditDrop: "audit_drop", TypeAuditCheckpoint: "audit_checkpoint",
	TypeJoinTokensReap: "join_tokens_reap",
	TypeUserPut:        "user_put", TypeUserDelete: "user_delete", TypeRolePut: "role_put", TypeRoleDelete: "role_delete", TypeTokenIssue: "token_issue",
	TypeTokensUsed: "tokens_used", TypeAccessPut: "access_put", TypeApprovalPut: "approval_put", TypeApprovalDecide: "approval_decide", TypeApprovalFinish: "approval_finish",
	TypeSnapshotStage: "snapshot_stage", TypeClusterRestore: "cluster_restore", TypeIncarnationStart: "incarnation_start",
	TypeDrillPut:   "drill_put",
	TypeKeysExpire: "keys_expire",
	TypeNodeRotate: "node_rotate", TypeNodeLock: "node_lock", TypeNodeUnlock: "node_unlock",
	TypeKEKRotate: "kek_rotate", TypeSecretsReseal: "secrets_reseal",
	TypeMemberRetire:  "member_retire",
	TypeGroupRekey:    "group_rekey",
	TypeOrderProgress: "order_progress", TypeRenewalPlan: "renewal_plan",
	TypeLockTake: "lock_take", TypeLockRelease: "lock_release",
	TypeRegionPut: "region_put", TypeDNSSetsPut: "dns_sets_put",
	TypeAuthorityObserve: "authority_observe",
	TypeHostRetire:       "host_retire",
	TypeOriginCertPut:    "origin_cert_put", TypeOriginCertDelete: "origin_cert_delete",
	TypeCertificateUpload: "certificate_upload", TypeCertificateRemove: "certificate_remove", TypeCertificateRenew: "certificate_renew",
	TypeCertificateRevoke: "certificate_revoke", TypeRevocationPut: "revocation_put",
	TypeRulesImport: "rules_import",
}

// String is the command's stable name, as it stands in the audit log.
func (t Type) String() string {
	if n, ok := names[t]; ok {
		return n
	}
	return fmt.Sprintf("command_%d", uint16(t))
}

// Types lists every command, in order.
func Types() []Type {
	ts := make([]Type, 0, len(bodies))
	for t := TypeClusterInit; int(t) <= len(bodies); t++ {
		ts = append(ts, t)
	}
	return ts
}

// bodies makes an empty body of each type for decoding.
var bodies = map[Type]func() Body{
	TypeClusterInit:       func() Body { return &ClusterInit{} },
	TypeMemberPut:         func() Body { return &MemberPut{} },
	TypeMemberRemove:      func() Body { return &MemberRemove{} },
	TypeGroupPut:          func() Body { return &GroupPut{} },
	TypeTenantPut:         func() Body { return &TenantPut{} },
	TypeTenantDelete:      func() Body { return &TenantDelete{} },
	TypeTokenPut:          func() Body { return &TokenPut{} },
	TypeTokenDelete:       func() Body { return &TokenDelete{} },
	TypeHostPut:           func() Body { return &HostPut{} },
	TypeHostDelete:        func() Body { return &HostDelete{} },
	TypeHostObserve:       func() Body { return &HostObserve{} },
	TypeRulePut:           func() Body { return &RulePut{} },
	TypeRuleDelete:        func() Body { return &RuleDelete{} },
	TypeJoinTokenPut:      func() Body { return &JoinTokenPut{} },
	TypeNodeEnrol:         func() Body { return &NodeEnrol{} },
	TypeNodeRenew:         func() Body { return &NodeRenew{} },
	TypeNodePut:           func() Body { return &NodePut{} },
	TypeNodeRevoke:        func() Body { return &NodeRevoke{} },
	TypeNodesReport:       func() Body { return &NodesReport{} },
	TypeHeadsAdvance:      func() Body { return &HeadsAdvance{} },
	TypeChallengePut:      func() Body { return &ChallengePut{} },
	TypeChallengeDelete:   func() Body { return &ChallengeDelete{} },
	TypeOrderPut:          func() Body { return &OrderPut{} },
	TypeCertificateCommit: func() Body { return &CertificateCommit{} },
	TypeEntryPut:          func() Body { return &EntryPut{} },
	TypeEntryDelete:       func() Body { return &EntryDelete{} },
	TypeMemberJoin:        func() Body { return &MemberJoin{} },
	TypeHostPutConsul:     func() Body { return &HostPutConsul{} },
	TypeOriginsResolve:    func() Body { return &OriginsResolve{} },
	TypeLeaderTransfer:    func() Body { return &LeaderTransfer{} },
	TypeAuditSeal:         func() Body { return &AuditSeal{} },
	TypeAuditDrop:         func() Body { return &AuditDrop{} },
	TypeAuditCheckpoint:   func() Body { return &AuditCheckpoint{} },
	TypeJoinTokensReap:    func() Body { return &JoinTokensReap{} },
	TypeUserPut:           func() Body { return &UserPut{} },
	TypeUserDelete:        func() Body { return &UserDelete{} },
	TypeRolePut:           func() Body { return &RolePut{} },
	TypeRoleDelete:        func() Body { return &RoleDelete{} },
	TypeTokenIssue:        func() Body { return &TokenIssue{} },
	TypeTokensUsed:        func() Body { return &TokensUsed{} },
	TypeAccessPut:         func() Body { return &AccessPut{} },
	TypeApprovalPut:       func() Body { return &ApprovalPut{} },
	TypeApprovalDecide:    func() Body { return &ApprovalDecide{} },
	TypeApprovalFinish:    func() Body { return &ApprovalFinish{} },
	TypeSnapshotStage:     func() Body { return &SnapshotStage{} },
	TypeClusterRestore:    func() Body { return &ClusterRestore{} },
	TypeIncarnationStart:  func() Body { return &IncarnationStart{} },
	TypeDrillPut:          func() Body { return &DrillPut{} },
	TypeKeysExpire:        func() Body { return &KeysExpire{} },
	TypeNodeRotate:        func() Body { return &NodeRotate{} },
	TypeNodeLock:          func() Body { return &NodeLock{} },
	TypeNodeUnlock:        func() Body { return &NodeUnlock{} },
	TypeKEKRotate:         func() Body { return &KEKRotate{} },
	TypeSecretsReseal:     func() Body { return &SecretsReseal{} },
	TypeMemberRetire:      func() Body { return &MemberRetire{} },
	TypeGroupRekey:        func() Body { return &GroupRekey{} },
	TypeOrderProgress:     func() Body { return &OrderProgress{} },
	TypeRenewalPlan:       func() Body { return &RenewalPlan{} },
	TypeLockTake:          func() Body { return &LockTake{} },
	TypeLockRelease:       func() Body { return &LockRelease{} },
	TypeRegionPut:         func() Body { return &RegionPut{} },
	TypeDNSSetsPut:        func() Body { return &DNSSetsPut{} },
	TypeAuthorityObserve:  func() Body { return &AuthorityObserve{} },
	TypeHostRetire:        func() Body { return &HostRetire{} },
	TypeOriginCertPut:     func() Body { return &OriginCertPut{} },
	TypeOriginCertDelete:  func() Body { return &OriginCertDelete{} },
	TypeCertificateUpload: func() Body { return &CertificateUpload{} },
	TypeCertificateRemove: func() Body { return &CertificateRemove{} },
	TypeCertificateRenew:  func() Body { return &CertificateRenew{} },
	TypeCertificateRevoke: func() Body { return &CertificateRevoke{} },
	TypeRevocationPut:     func() Body { return &RevocationPut{} },
	TypeRulesImport:       func() Body { return &RulesImport{} },
}
