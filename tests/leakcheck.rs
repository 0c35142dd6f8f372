//! `chartgate leakcheck`, a bounded sample of it, and the proof that it can find something.
//!
//! Owns: the size of the sample. Must never: set a difference aside.
//! Look next: `chartgate::cli::leakcheck`.
#![cfg(feature = "demo")]
#![expect(clippy::unwrap_used, reason = "a test may fail where it stands")]

use chartgate::cli::leakcheck::check::{Plan, Report, check};
use chartgate::cli::leakcheck::{Kind, role, shipped};
use chartgate_sandbox::emr::{self, Emr};

/// So many that every kind is asked by every role.
const REQUESTS: usize = 100;

fn plan(requests: usize) -> Plan {
    let (policies, emrs) = (None, None);
    Plan {
        policies,
        roles: shipped(),
        asked_as: None,
        requests,
        seed: 1,
        emrs,
        open_doors: true,
        keep_going: true,
    }
}

async fn run(plan: &Plan) -> Report {
    check(plan, &|_, _, _| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_two_hospitals_that_differ_in_what_is_withheld_answer_alike() {
    let report = run(&plan(REQUESTS)).await;
    assert!(report.leaks.is_empty(), "{:#?}", report.leaks);
    assert!(report.silent.is_empty(), "served, but nobody was answered: {:?}", report.silent);
    assert_eq!(report.roles.len(), shipped().len());
    for role in &report.roles {
        let [records, seen, differing] = role.records;
        assert!(records > 200 && seen > 3 && differing > 50, "{}: {:?}", role.role, role.records);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Page) {
            assert!(role.counts.get(&kind).is_some_and(|count| count.asked > 0), "{}: {kind:?}", role.role);
        }
    }
    let sums = report.sums();
    assert!(sums.answered > 300, "{sums:?}");
}

/// The worlds differ in what the front desk may not see, and a physician asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_found_and_made_short() {
    let desk = role("front-desk").into_iter().collect();
    let report = run(&Plan { roles: desk, asked_as: role("physician"), keep_going: false, ..plan(20) }).await;
    let [leak] = report.leaks.as_slice() else { panic!("{:#?}", report.leaks) };
    assert!(!report.is_good());
    assert_eq!((leak.role.as_str(), leak.kind), ("physician", Kind::Read));
    let path = leak.request.strip_prefix("curl -H \"Authorization: Bearer $TOKEN\" \"$BASE\"'/");
    assert!(path.is_some_and(|path| !path.contains('?')), "{}", leak.request);
    assert!(leak.difference.len() < 300, "{}", leak.difference);
}

/// Two EMRs that are not the gates' own, as a hospital would give them.
#[tokio::test(flavor = "multi_thread")]
async fn an_emr_of_the_hospitals_own_is_loaded_and_asked() {
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let emrs = [Emr::new(), Emr::new()];
    let mut servers = Vec::new();
    for emr in &emrs {
        servers.push(emr::serve(emr, anywhere).await.unwrap());
    }
    let urls: Vec<String> =
        servers.iter().map(|server| format!("http://{}/fhir", server.local_addr())).collect();
    let urls: [String; 2] = urls.try_into().unwrap();
    let roles = role("front-desk").into_iter().collect();
    let report = run(&Plan { roles, emrs: Some(urls), open_doors: false, ..plan(60) }).await;
    assert!(report.leaks.is_empty(), "{:#?}", report.leaks);
    assert!(report.sums().answered > 10, "{:?}", report.sums());
    let held = |emr: &Emr| emr.census().into_iter().map(|(_, count)| count).sum::<usize>();
    let [one, two] = &emrs;
    assert!(held(one) > 100 && held(one) != held(two), "{} {}", held(one), held(two));
}
