//! Job types: `publish`, `job_types`, `job_type_version`.

use super::harness::*;
use ryemill::broker::{BrokerError, LoadedType, Publication, RefusedType, TypeInfo};
use ryemill::job::{Timestamp, Version, WorkerId};

async fn publish(h: &Harness, worker: &WorkerId, types: Vec<LoadedType>) {
    let publication = Publication { worker: worker.clone(), types, refused: Vec::new() };
    h.broker.publish(&publication).await.unwrap();
}

fn reloaded(name: &str, version: &str, replaced: &str) -> LoadedType {
    LoadedType { replaced: Some(Version::new(replaced).unwrap()), ..loaded(name, version) }
}

async fn live(h: &Harness, name: &str) -> String {
    info(h, name).await.job_type.version.to_string()
}

async fn info(h: &Harness, name: &str) -> TypeInfo {
    let types = h.broker.job_types().await.unwrap();
    types.into_iter().find(|info| info.job_type.name.as_str() == name).expect("the type is known")
}

pub async fn a_request_to_reload_is_numbered_and_done_by_each_worker(h: Harness) {
    let (one, two) = (h.worker().await, h.worker().await);
    let reloads = h.broker.reloads().await.unwrap();
    assert_eq!((reloads.asked, reloads.done[&one], reloads.done.len()), (0, 0, 2));
    let first = h.broker.request_reload().await.unwrap();
    let second = h.broker.request_reload().await.unwrap();
    assert_eq!((first, second), (1, 2));
    h.broker.reloaded(&one, second).await.unwrap();
    // A late answer takes nothing back.
    h.broker.reloaded(&one, first).await.unwrap();
    h.broker.reloaded(&two, first).await.unwrap();
    let reloads = h.broker.reloads().await.unwrap();
    assert_eq!((reloads.asked, reloads.done[&one], reloads.done[&two]), (2, 2, 1));
    // Only the registered ones count.
    h.broker.retire(&two).await.unwrap();
    assert!(matches!(h.broker.reloaded(&two, second).await, Err(BrokerError::LeaseLost)));
    assert_eq!(h.broker.request_reload().await.unwrap(), 3);
    let reloads = h.broker.reloads().await.unwrap();
    assert_eq!((reloads.done.keys().collect::<Vec<_>>(), reloads.done[&one]), (vec![&one], 2));
}

pub async fn a_published_type_is_known_with_all_it_says(h: Harness) {
    assert!(h.broker.job_types().await.unwrap().is_empty());
    let worker = h.worker().await;
    publish(&h, &worker, vec![loaded("report", "v1"), loaded("email", "v9")]).await;
    let types = h.broker.job_types().await.unwrap();
    assert_eq!(types.iter().map(|info| info.job_type.name.as_str()).collect::<Vec<_>>(), ["email", "report"]);
    assert_eq!(types[0].job_type, loaded("email", "v9").job_type);
    let [there] = &types[0].workers[..] else { panic!("{types:?}") };
    assert_eq!((&there.id, there.version.as_str()), (&worker, "v9"));
    assert!(types[0].refused.is_none());
    let version = Version::new("v9").unwrap();
    let stored = h.broker.job_type_version(&job_name("email"), &version).await.unwrap();
    assert_eq!(stored, Some(loaded("email", "v9").job_type));
    assert_eq!(h.broker.job_type_version(&job_name("report"), &version).await.unwrap(), None);
    assert_eq!(h.broker.job_type_version(&job_name("none"), &version).await.unwrap(), None);
}

pub async fn the_version_that_was_first_published_last_is_live(h: Harness) {
    let (old, new) = (h.worker().await, h.worker().await);
    publish(&h, &old, vec![loaded("email", "v1")]).await;
    publish(&h, &new, vec![loaded("email", "v2")]).await;
    assert_eq!(live(&h, "email").await, "v2");
    // Heartbeats, and a worker that starts with the old script, change nothing.
    publish(&h, &old, vec![loaded("email", "v1")]).await;
    publish(&h, &h.worker().await, vec![loaded("email", "v1")]).await;
    assert_eq!(live(&h, "email").await, "v2");
    assert_eq!(info(&h, "email").await.workers.len(), 3);
    let v1 = Version::new("v1").unwrap();
    assert!(h.broker.job_type_version(&job_name("email"), &v1).await.unwrap().is_some(), "v1 stays known");
}

pub async fn an_edit_taken_back_is_live_again(h: Harness) {
    let (worker, other) = (h.worker().await, h.worker().await);
    publish(&h, &worker, vec![loaded("email", "v1")]).await;
    publish(&h, &worker, vec![reloaded("email", "v2", "v1")]).await;
    publish(&h, &worker, vec![reloaded("email", "v1", "v2")]).await;
    assert_eq!(live(&h, "email").await, "v1");
    // The other goes the same way a moment later; in between its v2 must not win for good.
    publish(&h, &other, vec![loaded("email", "v2")]).await;
    assert_eq!(live(&h, "email").await, "v1");
    publish(&h, &other, vec![reloaded("email", "v1", "v2")]).await;
    assert_eq!(live(&h, "email").await, "v1");
    // Published once more as it stands, after somebody else went on to v3.
    publish(&h, &other, vec![reloaded("email", "v3", "v1")]).await;
    publish(&h, &worker, vec![reloaded("email", "v1", "v3")]).await;
    assert_eq!(live(&h, "email").await, "v3", "this worker has replaced nothing");
}

pub async fn a_worker_that_replaces_an_old_version_does_not_move_the_live_one(h: Harness) {
    let (first, second) = (h.worker().await, h.worker().await);
    publish(&h, &first, vec![loaded("email", "v1")]).await;
    publish(&h, &first, vec![reloaded("email", "v2", "v1")]).await;
    publish(&h, &first, vec![reloaded("email", "v3", "v2")]).await;
    publish(&h, &second, vec![loaded("email", "v1")]).await;
    publish(&h, &second, vec![reloaded("email", "v2", "v1")]).await;
    assert_eq!(live(&h, "email").await, "v3");
}

pub async fn the_whole_list_replaces_the_one_before_and_the_type_stays_known(h: Harness) {
    let worker = h.worker().await;
    publish(&h, &worker, vec![loaded("email", "v1"), loaded("report", "v1")]).await;
    publish(&h, &worker, vec![loaded("report", "v1")]).await;
    assert!(info(&h, "email").await.workers.is_empty());
    assert_eq!(info(&h, "report").await.workers.len(), 1);
    h.broker.retire(&worker).await.unwrap();
    assert!(info(&h, "report").await.workers.is_empty());
    assert_eq!(live(&h, "email").await, "v1");
}

pub async fn a_worker_without_a_lease_has_no_types(h: Harness) {
    let worker = h.worker_with(LEASE).await;
    publish(&h, &worker, vec![loaded("email", "v1")]).await;
    h.advance(LEASE).await;
    assert!(info(&h, "email").await.workers.is_empty());
    h.broker.sweep(&sweep_with(LONG)).await.unwrap();
    assert!(info(&h, "email").await.workers.is_empty());
    for stranger in [worker, WorkerId::random()] {
        let publication = Publication { worker: stranger, types: vec![loaded("email", "v2")], refused: Vec::new() };
        let answer = h.broker.publish(&publication).await;
        assert!(matches!(answer, Err(BrokerError::LeaseLost)), "{answer:?}");
    }
    assert_eq!(live(&h, "email").await, "v1");
}

pub async fn a_refused_version_is_shown_until_the_worker_publishes_without_it(h: Harness) {
    let (worker, other) = (h.worker().await, h.worker().await);
    let refused = |version: &str, at: i64| RefusedType {
        name: job_name("email"),
        version: Version::new(version).unwrap(),
        reason: "line 3: unexpected end".into(),
        at: Timestamp(at * 1000),
    };
    let with = |worker: &WorkerId, refused: Vec<RefusedType>| Publication {
        worker: worker.clone(),
        types: vec![loaded("email", "v1")],
        refused,
    };
    h.broker.publish(&with(&worker, vec![refused("bad1", 1_000_000)])).await.unwrap();
    assert_eq!(info(&h, "email").await.refused, Some(refused("bad1", 1_000_000)));
    h.broker.publish(&with(&other, vec![refused("bad2", 2_000_000)])).await.unwrap();
    assert_eq!(info(&h, "email").await.refused.unwrap().version.as_str(), "bad2", "the last one");
    h.broker.publish(&with(&other, Vec::new())).await.unwrap();
    assert_eq!(info(&h, "email").await.refused.unwrap().version.as_str(), "bad1");
    h.broker.retire(&worker).await.unwrap();
    assert_eq!(info(&h, "email").await.refused, None, "nobody alive has it");
    assert_eq!(live(&h, "email").await, "v1");
}
