//! What a worker does with what one before it left at its crash.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ryemill::broker::{Run, SharedBroker};
use ryemill::job::{State, WorkerId};
use ryemill::script::notes::{Note, Notes};
use serde_json::json;

use super::trouble::{Fault, Line};
use super::{Site, new_job};
use crate::contract::harness::{beat, claim};
use crate::eventually::eventually;

const ECHO: (&str, &str) = ("echo", "const JOB = #{}; fn run(job) { job.payload }");

/// The file of a process that died on this run.
fn leave(folder: &Path, run: &Run) {
    let die = || {
        let notes = Notes::in_file(&File::create_new(folder.join("dead")).unwrap(), 1).unwrap();
        notes.seat(0).set(&Note::new(run.job, &run.queue, run.token));
    };
    std::thread::scope(|scope| scope.spawn(die).join().unwrap());
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_charged_once_the_broker_has_heard_of_it_and_never_twice() {
    let site = Site::new(&[ECHO]);
    let ids = site.submit_all(vec![new_job("echo", &json!(1)), new_job("echo", &json!(2))]).await;
    let dead = WorkerId::random();
    site.broker.renew(&beat(&dead, Duration::from_mins(10))).await.unwrap();
    let runs: Vec<Run> =
        site.broker.claim(&claim(&dead, 2)).await.unwrap().jobs.into_iter().map(|job| job.run).collect();
    let blamed = runs.iter().find(|run| run.job == ids[0]).unwrap();
    let folder = site.dir.path().join("on-cpu");
    std::fs::create_dir(&folder).unwrap();
    leave(&folder, blamed);
    std::fs::write(folder.join("garbage"), "of another program").unwrap();

    let line = Line::new(Arc::clone(&site.broker));
    // First it is not heard of, then the answer is lost.
    line.break_next("sweep", Fault::AnswerLost, 1);
    line.break_next("sweep", Fault::Refused, 1);
    let hand = site.work_with(Arc::clone(&line) as SharedBroker, Arc::clone(&site.library));
    let job = site.ended(ids[0]).await;
    assert_eq!((job.state, job.lost, job.attempt), (State::Succeeded, 1, 1), "{job:#?}");
    eventually("only its own file is there", async || (files(&folder) == 1).then_some(())).await;
    assert!(line.is_used_up());
    let beside = site.get(ids[1]).await;
    assert_eq!((beside.state, beside.lost), (State::Running, 0), "its worker has its lease for long: {beside:#?}");
    hand.stop().await.unwrap();
    assert_eq!(files(&folder), 0);
}
