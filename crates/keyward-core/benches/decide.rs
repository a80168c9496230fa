//! What deciding a request costs beside 10,000 standing grants, over none: at most 100 µs.
//!
//! `other profiles`: for a hundred others. `same profile`: for the one that is asked, in 10,000 projects. `too strong`: for the
//! very app, project and profile that are asked, but for the gateway alone while a variable is asked. `all fit`: each of them
//! would do.

use criterion::{Criterion, criterion_group, criterion_main};
use keyward_core::{
    AppScope, Ask, Boot, DeliveryMode, Grant, GrantId, Grants, Moment, Name, Program, Span, Term, Wall,
};
use std::hint::black_box;
use std::time::Duration;

const GRANTS: u32 = 10_000;

fn grants(count: u32, change: impl Fn(u32, &mut Grant<u128>)) -> Result<Grants<u128>, String> {
    let from = Moment { boot_id: [1; 16], boot: Boot(Duration::ZERO), wall: Wall(0) };
    let mut grants = Grants::default();
    for n in 0..count {
        let [a, b, c, d] = n.to_be_bytes();
        let mut grant = Grant {
            id: GrantId([0, a, b, c, d]),
            span: Span::Standing,
            app: AppScope::Program(program()),
            project: Some("/home/me/project".to_owned()),
            profile: name("claude")?,
            weakest: DeliveryMode::Env,
            term: Term::new(from, Term::CEILING)?,
            uses_left: None,
            run: None,
            request: None,
            created: Wall(0),
            allowed: 0,
            last_allowed: None,
        };
        change(n, &mut grant);
        grants.insert(grant)?;
    }
    Ok(grants)
}

fn program() -> Program {
    Program { path: "/usr/local/bin/claude".to_owned(), file: Some((1, 2, 3)), script: None }
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|e| e.to_string())
}

fn decide(c: &mut Criterion) -> Result<(), String> {
    let (profile, program) = (name("claude")?, program());
    let ask = Ask {
        profile: &profile,
        program: &program,
        launcher: Some([7; 16]),
        project: "/home/me/project",
        delivery: DeliveryMode::Env,
        outer: None,
        request: [0; 32],
    };
    let now = Moment { boot_id: [1; 16], boot: Boot(Duration::from_secs(60)), wall: Wall(60_000_000) };
    for (case, count) in
        [("none", 0), ("other profiles", GRANTS), ("same profile", GRANTS), ("too strong", GRANTS), ("all fit", GRANTS)]
    {
        let names = (0..100).map(|n| name(&format!("profile-{n}"))).collect::<Result<Vec<_>, _>>()?;
        let grants = grants(count, |n, grant| match case {
            "other profiles" => grant.profile.clone_from(names.get(n as usize % 100).unwrap_or(&profile)),
            "same profile" => grant.project = Some(format!("/home/me/project-{n}")),
            "too strong" => grant.weakest = DeliveryMode::Gateway,
            _ => (),
        })?;
        c.bench_function(&format!("decide/{case}"), |b| b.iter(|| grants.find(black_box(&ask), black_box(&now))));
    }
    Ok(())
}

fn run(c: &mut Criterion) {
    let done = decide(c);
    assert_eq!(done, Ok(()));
}

criterion_group!(decided, run);
criterion_main!(decided);
