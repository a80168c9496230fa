//! What a run would get, before anything is issued.

use crate::tool::Takes;
use crate::{DeliveryMode, Families, HandOver, Profile, Tools, Upstream};
use keyward_diag::{Code, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Who chose a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The profile.
    Profile,
    /// The caller, by `--deliver`.
    Caller,
    /// Nobody: it is the strongest that the issuer and the program can take, or the one that is known to work.
    Strongest,
}

impl Choice {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Caller => "--deliver",
            Self::Strongest => "strongest",
        }
    }
}

/// What the caller asks for, and what is there.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'w> {
    /// Path of the program, or the name of its file.
    pub program: &'w str,
    /// Delivery instead of the profiles' own.
    pub deliver: Option<DeliveryMode>,
    /// Longest life of the leases.
    pub ttl: Option<Duration>,
    /// Names of the caller's variables.
    pub present: &'w BTreeSet<String>,
    /// URL of the gateway, without a slash at its end: `http://127.0.0.1:PORT`.
    pub gateway: &'w str,
}

/// What one profile gives.
#[derive(Debug, Clone)]
pub struct PlannedDelivery {
    /// The profile.
    pub profile: Profile,
    /// How, and in which variables.
    pub hand_over: HandOver,
    /// Who chose that.
    pub choice: Choice,
    /// Why it is not the strongest that there is, where the program is the reason.
    pub why: Option<String>,
    /// The next weaker one that would work.
    pub weaker: Option<DeliveryMode>,
    /// Longest life of the lease.
    pub ttl: Duration,
}

impl PlannedDelivery {
    /// Where the gateway sends the requests; `None` with another delivery.
    pub fn upstream(&self) -> Option<&Upstream> {
        let target = self.profile.gateway.as_ref().filter(|_| self.hand_over.mode == DeliveryMode::Gateway);
        target.map(|target| &target.upstream)
    }
}

/// A variable that the child must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// Its name.
    pub variable: String,
    /// Profile whose credential it would shadow.
    pub profile: String,
    /// What it is.
    pub why: String,
}

/// What all profiles of a run give together.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One a profile, in the order of the request.
    pub deliveries: Vec<PlannedDelivery>,
    /// Variables of the caller that go.
    pub unset: Vec<Unset>,
}

/// What a profile gives to a program that nothing is known of, as far as it can be told beforehand. `gateway` is the URL of
/// the gateway.
pub fn usual(profile: &Profile, tools: &Tools, gateway: &str) -> HandOver {
    let takes = takes(profile, tools, "");
    let weakest = profile.delivery.mode.unwrap_or(DeliveryMode::Env);
    let mode = choose(profile, takes, "", None).map_or(weakest, |(mode, _)| mode);
    profile.hand_over(mode, takes, gateway)
}

fn takes<'t>(profile: &Profile, tools: &'t Tools, program: &str) -> Option<&'t Takes> {
    profile.provider.as_deref().and_then(|provider| tools.takes(program, provider))
}

/// The deliveries that work for a profile and a program, the one to choose first.
fn possible(profile: &Profile, takes: Option<&Takes>) -> Vec<DeliveryMode> {
    use DeliveryMode::{Env, File, Gateway};
    // Whoever names the variables knows the program.
    let own = profile.names_variables();
    let order = takes.map_or(&[Gateway, Env, File][..], |takes| &takes.takes);
    let known = |mode: DeliveryMode| own || takes.is_none() || order.contains(&mode);
    let works = |mode: &DeliveryMode| match mode {
        Env | File if profile.fence().is_some() => false,
        Gateway => profile.gateway.is_some() && known(Gateway),
        Env => !profile.delivery.variables.is_empty() && known(Env),
        File if profile.kind.usual.sdk_files => known(File),
        File => !profile.delivery.variables.is_empty() && (own || takes.is_none()),
    };
    let rest = [Gateway, File, Env].into_iter().filter(|mode| !order.contains(mode));
    order.iter().copied().chain(rest).filter(works).collect()
}

/// Checks that a profile can be delivered to a program by `weakest` or something stronger. `program` is a path or the name of a
/// file; empty for any program.
///
/// # Errors
/// [`Code::DeliveryImpossible`], with what the program can take.
pub fn deliverable(profile: &Profile, tools: &Tools, program: &str, weakest: DeliveryMode) -> Result<(), Fault> {
    let takes = takes(profile, tools, program);
    let possible = possible(profile, takes);
    match possible.iter().any(|mode| *mode >= weakest) {
        true => Ok(()),
        false => Err(impossible(profile, takes, program, Some(weakest), &possible)),
    }
}

/// Chooses the delivery: the caller's, else the profile's, else the first that works.
fn choose(
    profile: &Profile,
    takes: Option<&Takes>,
    program: &str,
    deliver: Option<DeliveryMode>,
) -> Result<(DeliveryMode, Choice), Fault> {
    let possible = possible(profile, takes);
    let (wanted, choice) = match (deliver, profile.delivery.mode) {
        (Some(mode), _) => (Some(mode), Choice::Caller),
        (None, Some(mode)) => (Some(mode), Choice::Profile),
        (None, None) => (possible.first().copied(), Choice::Strongest),
    };
    match wanted.filter(|mode| possible.contains(mode)) {
        Some(mode) => Ok((mode, choice)),
        None => Err(impossible(profile, takes, program, wanted, &possible)),
    }
}

/// The error of a delivery that the issuer or the program cannot take: names both, and what can be taken.
fn impossible(
    profile: &Profile,
    takes: Option<&Takes>,
    program: &str,
    wanted: Option<DeliveryMode>,
    possible: &[DeliveryMode],
) -> Fault {
    let program = match program.rsplit('/').next().unwrap_or(program) {
        "" => "any program".to_owned(),
        name => format!("the program `{}`", keyward_diag::plain(name, 64)),
    };
    let what = wanted.map_or("nothing", DeliveryMode::word);
    let (name, kind) = (&profile.name, profile.kind.kind);
    let mut fault = Fault::new(Code::DeliveryImpossible)
        .cause(format!("`{what}` from profile `{name}` (issuer `{kind}`) to {program}"));
    match wanted {
        Some(DeliveryMode::Gateway) if profile.gateway.is_none() => {
            fault = fault.cause("nothing says where its requests go: neither a provider nor a section [gateway]");
        }
        Some(DeliveryMode::Env | DeliveryMode::File) if profile.fence().is_some() => {
            fault = fault.cause("the profile has a fence, which the gateway alone keeps");
        }
        _ => {
            if let Some(why) = takes.and_then(|takes| takes.why.as_deref()) {
                fault = fault.cause(why);
            }
        }
    }
    let words: Vec<&str> = possible.iter().map(|mode| mode.word()).collect();
    match words.as_slice() {
        [] => fault.help("name the variables of the program in the profile: `[delivery] env`"),
        words => fault.help(format!("what they can take: {}", words.join(", "))),
    }
}

/// Plans a run: which variable carries what, and which of the caller's variables would win over it. A variable that the run
/// itself sets is never unset.
///
/// # Errors
/// [`Code::DeliveryImpossible`] when the program or the issuer cannot take a delivery; [`Code::DeliveryConflict`] when two
/// profiles want the same variable, or go to clients that take one of them.
pub fn plan(profiles: Vec<Profile>, wanted: &Wanted<'_>, families: &Families, tools: &Tools) -> Result<Plan, Fault> {
    let mut deliveries = Vec::with_capacity(profiles.len());
    for profile in profiles {
        let takes = takes(&profile, tools, wanted.program);
        let (mode, choice) = choose(&profile, takes, wanted.program, wanted.deliver)?;
        let possible = possible(&profile, takes);
        deliveries.push(PlannedDelivery {
            hand_over: profile.hand_over(mode, takes, wanted.gateway),
            choice,
            why: takes.and_then(|takes| takes.why.clone()).filter(|_| mode != DeliveryMode::Gateway),
            weaker: possible.into_iter().filter(|other| *other < mode).max(),
            ttl: wanted.ttl.map_or(profile.max_ttl, |ttl| ttl.min(profile.max_ttl)),
            profile,
        });
    }
    let owner = owners(&deliveries, families)?;
    let unset = shadows(&deliveries, &owner, wanted.present, families);
    Ok(Plan { deliveries, unset })
}

/// The profile that sets each variable.
fn owners(deliveries: &[PlannedDelivery], families: &Families) -> Result<BTreeMap<String, String>, Fault> {
    let mut owner: BTreeMap<String, String> = BTreeMap::new();
    for PlannedDelivery { profile, hand_over, .. } in deliveries {
        for variable in hand_over.carriers.iter().chain(hand_over.plain.keys()) {
            if let Some(other) = owner.insert(variable.clone(), profile.name.to_string()) {
                let cause = format!("`{variable}` is set by `{other}` and by `{}`", profile.name);
                return Err(Fault::new(Code::DeliveryConflict).cause(cause));
            }
        }
    }
    let mut families_owned: BTreeMap<&str, (&String, &String)> = BTreeMap::new();
    for (variable, profile) in &owner {
        let Some(family) = families.exclusive(variable) else { continue };
        let (first, other) = *families_owned.entry(family).or_insert((variable, profile));
        if other != profile {
            let cause = format!(
                "`{first}` of `{other}` and `{variable}` of `{profile}` go to the same clients, which take one of them"
            );
            return Err(Fault::new(Code::DeliveryConflict).cause(cause).help("run it with one of the two"));
        }
    }
    Ok(owner)
}

/// The caller's variables that would win over what is handed over, or be sent beside it.
fn shadows(
    deliveries: &[PlannedDelivery],
    owner: &BTreeMap<String, String>,
    present: &BTreeSet<String>,
    families: &Families,
) -> Vec<Unset> {
    let mut unset: Vec<Unset> = Vec::new();
    for PlannedDelivery { profile, hand_over, .. } in deliveries {
        let usual = profile.kind.usual.variables;
        // Under whatever name it is handed over: its clients must not find another one, nor what belongs to its making.
        let family = hand_over.carriers.iter().map(String::as_str).chain(usual.iter().copied());
        let shadows = family.flat_map(|variable| families.shadows(variable));
        let own = usual.iter().map(|variable| (*variable, "another credential of the same clients"));
        let clears = hand_over.clears.iter().map(|(variable, why)| (variable.as_str(), why.as_str()));
        for (shadow, why) in shadows.chain(own).chain(clears) {
            let seen = unset.iter().any(|u| u.variable == shadow);
            if present.contains(shadow) && !owner.contains_key(shadow) && !seen {
                let profile = profile.name.to_string();
                unset.push(Unset { variable: shadow.to_owned(), profile, why: why.to_owned() });
            }
        }
    }
    unset.sort_by(|a, b| a.variable.cmp(&b.variable));
    unset
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;
    use crate::{FieldSpec, KindRole, KindSpec, Name, Shape, Usual};

    const STATIC: KindSpec = KindSpec {
        kind: "static",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "secret", shape: Shape::Text, required: true, secret: true, about: "" },
            FieldSpec { name: "provider", shape: Shape::Text, required: false, secret: false, about: "" },
            FieldSpec { name: "base_url", shape: Shape::Url, required: false, secret: false, about: "" },
        ],
        usual: Usual::NONE,
    };
    const MINT: KindSpec = KindSpec {
        kind: "mint",
        role: KindRole::Issuer,
        about: "",
        fields: &[
            FieldSpec { name: "region", shape: Shape::Text, required: false, secret: false, about: "" },
            FieldSpec { name: "project", shape: Shape::Text, required: false, secret: false, about: "" },
            FieldSpec { name: "resource", shape: Shape::Text, required: false, secret: false, about: "" },
        ],
        usual: Usual::NONE,
    };
    const SDK: KindSpec = KindSpec {
        kind: "sdk",
        role: KindRole::Issuer,
        about: "",
        fields: &[],
        usual: Usual {
            variables: &["ANTHROPIC_AUTH_TOKEN"],
            sdk_files: true,
            provider: Some("anthropic"),
            endpoint: None,
        },
    };
    const ADDRESS: &str = "http://127.0.0.1:4711";

    fn families() -> Families {
        Families::built_in().unwrap_or_else(|e| panic!("{e}"))
    }

    fn tools() -> Tools {
        Tools::built_in().unwrap_or_else(|e| panic!("{e}"))
    }

    fn read(name: &str, text: &str) -> Profile {
        Profile::parse(Name::parse(name).unwrap(), text, &[&STATIC, &MINT, &SDK], &families()).unwrap()
    }

    /// A plan for a program that nothing is known of.
    fn plan(
        profiles: Vec<Profile>,
        deliver: Option<DeliveryMode>,
        ttl: Option<Duration>,
        present: &BTreeSet<String>,
        families: &Families,
    ) -> Result<Plan, Fault> {
        super::plan(profiles, &Wanted { program: "x", deliver, ttl, present, gateway: ADDRESS }, families, &tools())
    }

    fn for_program(program: &str, text: &str, deliver: Option<DeliveryMode>) -> Result<PlannedDelivery, Fault> {
        let wanted = Wanted { program, deliver, ttl: None, present: &BTreeSet::new(), gateway: ADDRESS };
        super::plan(vec![read("p", text)], &wanted, &families(), &tools()).map(|mut plan| plan.deliveries.remove(0))
    }

    fn key_of(provider: &str) -> String {
        format!("[issuer]\nkind = \"static\"\nsecret = \"secret:s\"\nprovider = \"{provider}\"\n")
    }

    fn profile(name: &str, variable: &str) -> Profile {
        let text = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:s\"\n[delivery]\nenv = {{ {variable} = \"token\" }}\n[limits]\nmax_ttl = \"1h\""
        );
        read(name, &text)
    }

    #[test]
    fn a_profile_with_a_fence_never_falls_back_to_a_weaker_delivery() {
        let fenced = |provider: &str| format!("{}[fence]\nrequests = 5\n", key_of(provider));
        let given = for_program("x", &fenced("anthropic"), None).unwrap();
        assert_eq!((given.hand_over.mode, given.weaker), (DeliveryMode::Gateway, None));
        for (program, provider, deliver) in [
            ("x", "anthropic", Some(DeliveryMode::Env)),
            ("x", "anthropic", Some(DeliveryMode::File)),
            // It takes nothing but the credential itself.
            ("gh", "github", None),
        ] {
            let fault = for_program(program, &fenced(provider), deliver).unwrap_err();
            assert_eq!(fault.code, Code::DeliveryImpossible, "{program}");
        }
        let fault = for_program("x", &fenced("anthropic"), Some(DeliveryMode::Env)).unwrap_err();
        assert!(fault.causes.iter().any(|cause| cause.contains("fence")), "{fault:?}");
    }

    #[test]
    fn variables_that_would_win_go_and_are_named_once() {
        let present = ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "HOME", "ANTHROPIC_AUTH_TOKEN", "GH_TOKEN"];
        let present = present.iter().map(|s| (*s).to_owned()).collect();
        let plan = plan(vec![profile("a", "ANTHROPIC_AUTH_TOKEN")], None, None, &present, &families()).unwrap();
        let names: Vec<_> = plan.unset.iter().map(|u| u.variable.as_str()).collect();
        assert_eq!(names, ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]);
        assert!(plan.unset.iter().all(|u| u.profile == "a" && !u.why.is_empty()));
    }

    #[test]
    fn what_the_run_sets_itself_stays() {
        let present = BTreeSet::from(["AWS_SECRET_ACCESS_KEY".to_owned(), "AWS_SESSION_TOKEN".to_owned()]);
        let both = vec![profile("i", "AWS_ACCESS_KEY_ID"), profile("s", "AWS_SECRET_ACCESS_KEY")];
        let plan = plan(both, None, None, &present, &families()).unwrap();
        let names: Vec<_> = plan.unset.iter().map(|u| u.variable.as_str()).collect();
        assert_eq!(names, ["AWS_SESSION_TOKEN"]);
    }

    #[test]
    fn two_profiles_cannot_share_a_variable() {
        let fault =
            plan(vec![profile("a", "X"), profile("b", "X")], None, None, &BTreeSet::new(), &families()).unwrap_err();
        assert_eq!((fault.code, fault.causes[0].as_str()), (Code::DeliveryConflict, "`X` is set by `a` and by `b`"));
    }

    #[test]
    fn two_profiles_for_clients_that_take_one_are_refused() {
        let two = vec![profile("key", "ANTHROPIC_API_KEY"), profile("bearer", "ANTHROPIC_AUTH_TOKEN")];
        let fault = plan(two, None, None, &BTreeSet::new(), &families()).unwrap_err();
        assert!(fault.code == Code::DeliveryConflict && fault.causes[0].contains("take one of them"), "{fault}");
        let parts = vec![profile("id", "AWS_ACCESS_KEY_ID"), profile("secret", "AWS_SECRET_ACCESS_KEY")];
        assert!(plan(parts, None, None, &BTreeSet::new(), &families()).is_ok());
    }

    #[test]
    fn the_shorter_life_and_the_callers_delivery_win() {
        let short = Duration::from_secs(60);
        let plan1 = plan(vec![profile("a", "X")], Some(DeliveryMode::File), Some(short), &BTreeSet::new(), &families())
            .unwrap();
        assert_eq!((plan1.deliveries[0].ttl, plan1.deliveries[0].hand_over.mode), (short, DeliveryMode::File));
        let long = plan(vec![profile("a", "X")], None, Some(short * 600), &BTreeSet::new(), &families()).unwrap();
        assert_eq!(long.deliveries[0].ttl, Duration::from_secs(3600));
    }

    #[test]
    fn each_tool_gets_the_run_token_where_it_looks_for_a_key() {
        let mint = |provider: &str, more: &str| {
            format!("[issuer]\nkind = \"mint\"\n{more}\n[gateway]\nprovider = \"{provider}\"\n")
        };
        let cloud = "region = \"eu-west-3\"\nproject = \"pr\"\nresource = \"res\"";
        let at = |path: &str| format!("{ADDRESS}{path}");
        /// Program, profile, variables with the token, variables beside it.
        type Row = (&'static str, String, &'static [&'static str], Vec<(&'static str, String)>);
        let table: [Row; 11] = [
            ("claude", key_of("anthropic"), &["ANTHROPIC_AUTH_TOKEN"], vec![("ANTHROPIC_BASE_URL", at(""))]),
            ("/usr/bin/python3", key_of("anthropic"), &["ANTHROPIC_AUTH_TOKEN"], vec![("ANTHROPIC_BASE_URL", at(""))]),
            ("python3", key_of("openai"), &["OPENAI_API_KEY"], vec![("OPENAI_BASE_URL", at("/v1"))]),
            ("codex", key_of("openai"), &["OPENAI_API_KEY"], vec![]),
            ("gemini", key_of("gemini"), &["GEMINI_API_KEY"], vec![("GOOGLE_GEMINI_BASE_URL", at(""))]),
            (
                "aws",
                mint("bedrock", ""),
                &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
                vec![
                    ("ANTHROPIC_BEDROCK_BASE_URL", at("")),
                    ("AWS_DEFAULT_REGION", "us-east-1".into()),
                    ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", at("")),
                    ("AWS_REGION", "us-east-1".into()),
                ],
            ),
            (
                "claude",
                mint("bedrock", cloud),
                &["AWS_BEARER_TOKEN_BEDROCK"],
                vec![
                    ("ANTHROPIC_BEDROCK_BASE_URL", at("")),
                    ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", at("")),
                    ("AWS_REGION", "eu-west-3".into()),
                    ("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1".into()),
                    ("CLAUDE_CODE_USE_BEDROCK", "1".into()),
                ],
            ),
            (
                "claude",
                mint("vertex", cloud),
                &["ANTHROPIC_AUTH_TOKEN"],
                vec![
                    ("ANTHROPIC_VERTEX_BASE_URL", at("/v1")),
                    ("ANTHROPIC_VERTEX_PROJECT_ID", "pr".into()),
                    ("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1".into()),
                    ("CLAUDE_CODE_USE_VERTEX", "1".into()),
                    ("CLOUD_ML_REGION", "eu-west-3".into()),
                ],
            ),
            (
                "python3",
                mint("vertex", "region = \"eu-west-3\""),
                &["GOOGLE_APPLICATION_CREDENTIALS"],
                vec![("ANTHROPIC_VERTEX_BASE_URL", at("/v1")), ("CLOUD_ML_REGION", "eu-west-3".into())],
            ),
            (
                "python3",
                mint("foundry", cloud),
                &["ANTHROPIC_FOUNDRY_API_KEY"],
                vec![("ANTHROPIC_FOUNDRY_BASE_URL", at("/anthropic"))],
            ),
            (
                "claude",
                mint("foundry", cloud),
                &["ANTHROPIC_FOUNDRY_API_KEY"],
                vec![("ANTHROPIC_FOUNDRY_BASE_URL", at("/anthropic")), ("CLAUDE_CODE_USE_FOUNDRY", "1".into())],
            ),
        ];
        for (program, text, token, plain) in table {
            let planned = for_program(program, &text, None).unwrap_or_else(|e| panic!("{program} {text}: {e}"));
            let given = &planned.hand_over;
            assert_eq!((given.mode, planned.choice), (DeliveryMode::Gateway, Choice::Strongest), "{program} {text}");
            assert_eq!(given.carriers.iter().collect::<Vec<_>>(), token, "{program} {text}");
            let plain: BTreeMap<_, _> = plain.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
            assert_eq!(given.plain, plain, "{program} {text}");
            assert_eq!(given.form == crate::Form::GoogleAdc, token == ["GOOGLE_APPLICATION_CREDENTIALS"]);
            assert_eq!(given.args.is_empty(), program != "codex");
        }
        let codex = for_program("codex", &key_of("openai"), None).unwrap().hand_over.args;
        assert!(codex[3].contains("base_url=\"http://127.0.0.1:4711/v1\"") && !codex.concat().contains("{url}"));
    }

    #[test]
    fn a_program_that_cannot_take_the_gateway_gets_the_next_and_it_is_said_why() {
        let gh = for_program("/usr/bin/gh", &key_of("github"), None).unwrap();
        assert_eq!((gh.hand_over.mode, gh.choice), (DeliveryMode::Env, Choice::Strongest));
        assert!(gh.why.as_deref().is_some_and(|why| why.contains("its own host")) && gh.weaker.is_none());
        let asked = for_program("/usr/bin/gh", &key_of("github"), Some(DeliveryMode::Gateway)).unwrap_err();
        assert_eq!(asked.code, Code::DeliveryImpossible);
        let said = asked.causes.join(" ");
        assert!(said.contains("`p`") && said.contains("`gh`") && said.contains("static"), "{said}");
        assert!(asked.help.contains("env") && !asked.help.contains("file"), "{}", asked.help);
        let other = for_program("gh-stats", &key_of("github"), Some(DeliveryMode::Gateway)).unwrap();
        assert_eq!((other.hand_over.mode, other.choice), (DeliveryMode::Gateway, Choice::Caller));
    }

    #[test]
    fn what_no_program_could_take_is_told_ahead() {
        use DeliveryMode::{Env, File, Gateway};
        let tools = Tools::built_in().unwrap();
        let can = |text: &str, program: &str, weakest| deliverable(&read("p", text), &tools, program, weakest);
        let bare = "[issuer]\nkind = \"static\"\nsecret = \"secret:s\"\n[delivery]\nenv = { X = \"token\" }";
        for (text, program, weakest, ok) in [
            (bare, "", Env, true),
            (bare, "", File, true),
            (bare, "", Gateway, false),
            (&key_of("github"), "", Gateway, true),
            (&key_of("github"), "/usr/bin/gh", Gateway, false),
            (&key_of("github"), "/usr/bin/gh", Env, true),
        ] {
            assert_eq!(can(text, program, weakest).is_ok(), ok, "{text} {program} {weakest:?}");
        }
        let fault = can(bare, "", Gateway).unwrap_err();
        assert!(
            fault.causes[0].ends_with("to any program") && fault.causes[1].contains("neither a provider"),
            "{fault}"
        );
        assert!(fault.code == Code::DeliveryImpossible && fault.help.contains("env"), "{fault}");
    }

    #[test]
    fn the_profile_and_the_caller_go_before_the_strongest() {
        let key = key_of("anthropic");
        let mode = |text: &str, deliver| for_program("claude", text, deliver).map(|p| (p.hand_over.mode, p.choice));
        let own = format!("{key}[delivery]\nenv = {{ MY_KEY = \"token\" }}");
        use DeliveryMode::{Env, File, Gateway};
        assert_eq!(mode(&key, None).unwrap(), (Gateway, Choice::Strongest));
        assert_eq!(mode(&own, None).unwrap(), (Env, Choice::Profile));
        assert_eq!(mode(&own, Some(Gateway)).unwrap(), (Gateway, Choice::Caller));
        assert_eq!(mode(&key, Some(Env)).unwrap(), (Env, Choice::Caller));
        assert_eq!(mode(&format!("{key}[delivery]\nmode = \"env\""), None).unwrap(), (Env, Choice::Profile));
        // A path is no key; only the SDKs of an issuer that has such files read them.
        assert_eq!(mode(&key, Some(File)).unwrap_err().code, Code::DeliveryImpossible);
        assert_eq!(mode("[issuer]\nkind = \"sdk\"", Some(File)).unwrap(), (File, Choice::Caller));
        let planned = for_program("claude", "[issuer]\nkind = \"sdk\"", None).unwrap();
        assert_eq!((planned.hand_over.mode, planned.weaker, planned.why), (Gateway, Some(File), None));
        let nothing = "[issuer]\nkind = \"static\"\nsecret = \"secret:s\"\n[delivery]\nenv = { X = \"token\" }";
        let fault = for_program("x", nothing, Some(Gateway)).unwrap_err();
        assert!(fault.code == Code::DeliveryImpossible && fault.causes[1].contains("where its requests go"), "{fault}");
        assert!(fault.help.contains("file, env") || fault.help.contains("env, file"), "{}", fault.help);
    }

    #[test]
    fn a_stale_key_in_the_shell_does_not_win_over_the_run_token() {
        let shell = [
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_PROFILE",
            "ANTHROPIC_CUSTOM_HEADERS",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "ANTHROPIC_BASE_URL",
            "AWS_ACCESS_KEY_ID",
            "HOME",
        ];
        let present: BTreeSet<String> = shell.iter().map(|s| (*s).to_owned()).collect();
        let unset = |program: &str, text: &str| {
            let wanted = Wanted { program, deliver: None, ttl: None, present: &present, gateway: ADDRESS };
            let plan = super::plan(vec![read("p", text)], &wanted, &families(), &tools()).unwrap();
            plan.unset.into_iter().map(|u| u.variable).collect::<Vec<_>>()
        };
        let all = ["ANTHROPIC_API_KEY", "ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_PROFILE", "CLAUDE_CODE_OAUTH_TOKEN"];
        let claude = unset("claude", &key_of("anthropic"));
        assert_eq!(claude[..4], all);
        assert_eq!(claude[4..], ["CLAUDE_CODE_USE_BEDROCK"]);
        let bedrock = "[issuer]\nkind = \"mint\"\n[gateway]\nprovider = \"bedrock\"";
        assert_eq!(unset("claude", bedrock), ["AWS_ACCESS_KEY_ID"]);
    }
}
