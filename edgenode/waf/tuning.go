package waf

// exclusions are where the core rule set takes what people and applications write for an attack. What they let through by
// themselves is weighed with everything else that matches: an attack mostly matches several rules.
var exclusions = []exclusion{
	{rules: []int{920420}, reason: "a content type is no attack; a body of a type that nothing parses is inspected as bytes"},
	{
		rules: []int{942100}, only: `['"` + "`" + `][^'"` + "`" + `]*(?:\b(?:or|and|union|having|like|rlike|between|xor|waitfor|exec|exists)\b|&&|\|\|)|['"` + "`" + `)\d]\s*;?\s*(?:--|#|/\*)|` +
			`;\s*(?:drop|delete|insert|update|select|exec|shutdown|create|alter|waitfor|declare)\b|\bunion\b.{0,40}\bselect\b|\b(?:sleep|pg_sleep|benchmark|extractvalue|updatexml|load_file|concat|char|convert)\s*\(|` +
			`\b(?:or|and)\b\s+['"(]*\w+['")]*\s*(?:=|like\b)|@@|information_schema|xp_cmdshell|0x[0-9a-f]{6}`,
		reason: "arithmetic, comparisons and queries in prose parse as SQL, and break out of no string",
	},
	{
		rules: []int{942190}, only: `\bunion\b(?:[\s(/*+!]|all|distinct)*select\b|\bexec\w*\s*[(\s]+\s*(?:xp|sp)_|;\s*exec|information_schema|@@|into\s+(?:out|dump)file|select\b.*\b(?:user|version|database|benchmark|sleep)\s*\(`,
		reason: "names such as Union Station Select Foods",
	},
	{
		rules: []int{942290}, only: `(?:^|["'\[.])\$(?:ne|nin|in|eq|gte?|lte?|n?or|and|not|regex|where|exists|elemmatch|type|mod|expr|function|all|size|slice)(?:$|["'\].])`,
		reason: "GraphQL variables, OData options and analytics begin with a dollar too",
	},
	{rules: []int{942230}, only: `\bif\s*\(.+,.+,.+\)|\bcase\s+when\b|\bhaving\b|\blike\s*['"(]`, reason: "an if with parentheses is usual in prose and code"},
	{
		rules: []int{942350}, only: `;\s*(?:drop|alter|create|truncate|rename)\s+(?:table|database|user|function|view|index)|;\s*(?:insert\s+into|delete\s+from|update\s+\w+\s+set|select\s+(?:\*|[\w(),@ ]+\s+from\b|\w+\())|;\s*(?:declare|desc|load|shutdown)\b`,
		reason: "a sentence may go on with select behind a semicolon",
	},
	{rules: []int{942540}, only: `;\s*(?:--|#|/\*|drop|delete|insert|update|exec|shutdown|select|create|alter|waitfor|declare|return|$)`, reason: "a quote and a semicolon are usual in passwords and prose"},
	{rules: []int{942550}, only: `json_|jsonb|->|@>|<@|\?\||'\s*(?:and|or)\b|'\{`, reason: "JSON within JSON"},
	{
		rules: []int{930100, 930110}, only: `(?:\.\.+;?(?:[\\/]|%2f|%5c|%252f|%c0%af)+){2}|\.\.(?:[\\/]|%2f|%5c).*(?:passwd|shadow|\.ini|web\.config|web-inf|\.ssh|\.env|\.git|id_rsa|\.htaccess|\.log|\.conf|etc/)`,
		reason: "one step up is usual in relative links and paths of files",
	},
	{
		rules: []int{930120}, only: `passwd|shadow|\bproc/|\.\.[\\/]|id_rsa|\.ssh|\.aws|\.env\b|\.git\b|\.htaccess|win\.ini|boot\.ini|system32|web-inf|web\.config|file:|^/etc/(?:hosts|group|issue|sudoers|crontab|ssh|mysql|nginx|apache2?|httpd)|^[a-z]:\\|[;|&$` + "`" + `]`,
		reason: "the names of system files are usual in questions, logs and settings",
	},
	{
		rules: []int{932235}, only: "[;|`]|&&|\\$\\(|[<>]\\(|\\n\\s*(?:cat|wget|curl|nc|bash|sh|python|perl|ruby|id|whoami|uname)\\s+[-/'\"$a-z]*[-/'\"$]",
		except: fenced + `|^data:`, reason: "an ampersand or a new line before a word that is also a command: mail, file, time",
	},
	{rules: []int{932260}, only: `[-/$|;<>]`, except: fenced + `|^data:`, reason: "wget vs curl"},
	{rules: []int{932125}, only: `[;|&]|\$\(`, except: "^[^;|&]*`[^`]+`", reason: "code between backticks in prose"},
	{rules: []int{932230, 932250, 932370}, except: fenced, reason: "code in fences of markdown"},
	{rules: []int{932130}, only: `\$[({]|[<>]\(`, reason: "stack traces: <anonymous> (file)"},
	{rules: []int{932140}, only: `\bfor\b.*\bdo\b|\bfor\b\s*/|\bif\s+(?:/i|not|exist|errorlevel|defined|cmdextversion)\b|%%`, reason: "if in prose"},
	{rules: []int{932280}, only: `\{\s*[a-z/.][^{},]*,[^{}]*\}`, reason: "counts in regular expressions: {2,}"},
	{rules: []int{932180}, only: `^\.|\.php|\.htaccess|web\.config`, reason: "files of settings are uploaded on purpose"},
	{
		rules: []int{933160}, only: `<\?|\b(?:system|exec|shell_exec|passthru|eval|assert|popen|proc_open|pcntl_exec|base64_decode|call_user_func|file_get_contents|file_put_contents|fopen|readfile|include|require|phpinfo|create_function|preg_replace|unserialize)\s*\(`,
		reason: "printf is a function in many languages",
	},
	{rules: []int{933210}, only: `['")\]}]\s*\(\s*['"$]|\b(?:system|exec|passthru|assert|eval)\b`, reason: "a sum in parentheses behind a variable"},
	{rules: []int{934170, 941170}, except: `^data:(?:image/(?:png|jpe?g|gif|webp|avif)|font/\w+|application/pdf);base64,[a-z0-9+/=_-]*$`, reason: "pictures in JSON"},
	{
		rules: []int{941130}, only: `xlink:href|data:text/html|formaction\s*=|xmlns\s*=\s*["']?https?://www\.w3\.org/(?:1999/xhtml|2000/svg)|pattern\b`,
		except: `^data:image/(?:png|jpe?g|gif|webp|avif);base64,[a-z0-9+/=_-]*$`, reason: "namespaces of XML, as in every SAML answer",
	},
	{rules: []int{941160}, only: `\bon\w+\s*=|script|<\s*(?:iframe|svg|object|embed|base|meta|link|math|form|applet|style)\b|data:|srcdoc|formaction|expression\(`, reason: "texts of editors are HTML with pictures"},
	{rules: []int{921130}, only: `[\r\n]\s*(?:set-cookie|location|content-(?:type|length))\s*:|http/\d|\bset-cookie`, reason: "mails are HTML documents"},
}

// fenced is the fence of a block of code in markdown.
const fenced = "(?:^|\\n)```[a-z]*\\s"

// detectors find what the core rule set leaves out at paranoia level 1.
var detectors = []detector{
	{
		targets: written + "|REQUEST_BODY", operator: `@rx (?i)<!(?:DOCTYPE|ENTITY)[^>]*\b(?:SYSTEM|PUBLIC)\b\s*[\x22']|<!ENTITY\s`, transformations: "t:none",
		tag: "attack-xxe", message: "XML with entities from elsewhere", reason: "the core rule set has no rule for external entities",
	},
	{
		targets: written, operator: `@rx (?:\{\{|\{%|[$#@*]\{)[^{}]*(?:\d\s*[*]\s*['\x22]?\d|__\w+__|\bT\(|\bconfig\b|\bself\b|popen|getRuntime|\bnew\s+java)|\{%\s*(?:for|if|set|import|include)\b[^%]*__|<%=?\s*\d+\s*\*\s*\d+`, transformations: "t:urlDecodeUni",
		tag: "attack-ssti", message: "Server-side template injection", reason: "at level 1 only two template languages are known",
	},
	{
		targets: written, operator: `@rx (?i)['\x22]\s*(?:\|\||&&)\s*['\x22]?\w*['\x22]?\s*(?:===?|!=|<|>)`, transformations: "t:urlDecodeUni",
		tag: "attack-sqli", message: "Condition injected behind a quote", reason: "conditions of JavaScript reach document databases",
	},
	{
		targets: written, operator: `@rx ^rO0AB[\w+/]|(?i)@type\x22\s*:\s*\x22(?:com|org|java|javax|sun)\.`, transformations: "t:none",
		tag: "attack-injection-java", message: "Serialized Java object", reason: "at level 1 only bytes are known",
	},
	{
		targets: written, operator: `@rx (?i)^\s*(?:dict|gopher|ldaps?|tftp|jar|phar|netdoc)://`, transformations: "t:urlDecodeUni",
		tag: "attack-ssrf", message: "URL with a scheme that servers are made to fetch", reason: "at level 1 only addresses are known",
	},
	{
		targets: written, operator: `@rx (?i)^\s*(?:\||\|\||&&|;|\x60|\$\()\s*(?:id|whoami|uname|ls|pwd|env|ps|hostname|ifconfig|netstat)\b\s*(?:$|[;|&\x60)>-])`, transformations: "t:urlDecodeUni",
		tag: "attack-rce", message: "Command behind a separator", reason: "short commands need level 2",
	},
}
