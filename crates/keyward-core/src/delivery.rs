//! What a run would get, before anything is issued.

use crate::{DeliveryMode, Families, HandOver, Profile};
use keyward_diag::{Code, Fault};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Who chose a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The profile, or the only way that its issuer and the tool can take.
    Profile,
    /// The caller, by `--deliver`.
    Caller,
}

impl Choice {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Caller => "--deliver",
        }
    }
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
    /// Longest life of the lease.
    pub ttl: Duration,
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

/// Plans a run: which variable carries what, and which of the caller's variables would win over it.
///
/// `present` are the names of the caller's variables. A variable that the run itself sets is never unset.
///
/// # Errors
/// [`Code::DeliveryConflict`] when two profiles want the same variable; [`Code::ProfileInvalid`] when a profile is named
/// twice.
pub fn plan(
    profiles: Vec<Profile>,
    deliver: Option<DeliveryMode>,
    ttl: Option<Duration>,
    present: &BTreeSet<String>,
    families: &Families,
) -> Result<Plan, Fault> {
    let hand_overs: Vec<HandOver> = profiles.iter().map(|p| p.hand_over(deliver)).collect();
    let mut owner: BTreeMap<String, String> = BTreeMap::new();
    for (profile, hand_over) in profiles.iter().zip(&hand_overs) {
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
    let mut unset: Vec<Unset> = Vec::new();
    for (profile, hand_over) in profiles.iter().zip(&hand_overs) {
        let usual = profile.kind.usual.variables;
        // Under whatever name it is handed over: its clients must not find another one, nor what belongs to its making.
        let family = hand_over.carriers.iter().map(String::as_str).chain(usual.iter().copied());
        let shadows = family.flat_map(|variable| families.shadows(variable));
        let own = usual.iter().map(|variable| (*variable, "another credential of the same clients"));
        let clears = hand_over.clears.iter().map(|(variable, why)| (variable.as_str(), *why));
        for (shadow, why) in shadows.chain(own).chain(clears) {
            let seen = unset.iter().any(|u| u.variable == shadow);
            if present.contains(shadow) && !owner.contains_key(shadow) && !seen {
                let profile = profile.name.to_string();
                unset.push(Unset { variable: shadow.to_owned(), profile, why: why.to_owned() });
            }
        }
    }
    unset.sort_by(|a, b| a.variable.cmp(&b.variable));
    let deliveries = profiles.into_iter().zip(hand_overs).map(|(profile, hand_over)| PlannedDelivery {
        hand_over,
        choice: if deliver.is_some() { Choice::Caller } else { Choice::Profile },
        ttl: ttl.map_or(profile.max_ttl, |t| t.min(profile.max_ttl)),
        profile,
    });
    Ok(Plan { deliveries: deliveries.collect(), unset })
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
        fields: &[FieldSpec { name: "secret", shape: Shape::Text, required: true, secret: true, about: "" }],
        usual: Usual::NONE,
    };

    fn families() -> Families {
        Families::built_in().unwrap_or_else(|e| panic!("{e}"))
    }

    fn profile(name: &str, variable: &str) -> Profile {
        let text = format!(
            "[issuer]\nkind = \"static\"\nsecret = \"secret:s\"\n[delivery]\nenv = {{ {variable} = \"token\" }}\n[limits]\nmax_ttl = \"1h\""
        );
        Profile::parse(Name::parse(name).unwrap(), &text, &[&STATIC], &families()).unwrap()
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
}
