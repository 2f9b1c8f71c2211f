//! `log` and `logs`.

use std::time::Duration;

use super::harness::*;
use ryemill::broker::{BrokerError, LogBatch, NewLogLine, Run};
use ryemill::job::{JobId, LogLevel, RunEnd, RunToken, State, Timestamp};

const ROOM: u64 = 1 << 20;

async fn running(h: &Harness) -> (JobId, Run) {
    let id = h.enqueue(job("email")).await;
    let worker = h.worker().await;
    (id, h.claim_one(&worker).await.run)
}

fn batch(run: &Run, texts: &[&str]) -> LogBatch {
    LogBatch {
        run: run.clone(),
        attempt: 1,
        first: 0,
        lines: texts.iter().map(|text| line(text)).collect(),
        dropped: 0,
    }
}

async fn texts(h: &Harness, id: JobId) -> Vec<String> {
    let logs = h.broker.logs(id, 0, 10_000).await.unwrap().unwrap();
    logs.lines.into_iter().map(|line| line.message).collect()
}

pub async fn lines_come_back_as_given_and_in_order(h: Harness) {
    let (id, run) = running(&h).await;
    let given = NewLogLine {
        time: Timestamp(1_234_567),
        level: LogLevel::Warn,
        message: "quer\u{0}y\n«é»".into(),
        fields: Some(json(r#"{"n": 1.0}"#)),
    };
    let first = LogBatch { run: run.clone(), attempt: 4, first: 0, lines: vec![given.clone(), line("b")], dropped: 0 };
    assert!(
        h.broker
            .log(vec![first, LogBatch { first: 2, ..batch(&run, &["c"]) }], ROOM)
            .await
            .unwrap()
            .iter()
            .all(Result::is_ok)
    );
    let logs = h.broker.logs(id, 0, 10).await.unwrap().unwrap();
    assert_eq!(logs.lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(logs.dropped, 0);
    let stored = &logs.lines[0];
    assert_eq!((stored.time, stored.level, stored.attempt), (given.time, given.level, 4));
    assert_eq!(stored.message, given.message);
    assert_eq!(stored.fields.as_ref().unwrap().get(), given.fields.unwrap().get());
    assert!(logs.lines[1].fields.is_none());
}

pub async fn a_reader_goes_on_after_a_line(h: Harness) {
    let (id, run) = running(&h).await;
    h.broker.log(vec![batch(&run, &["1", "2", "3", "4", "5"])], ROOM).await.unwrap();
    let page = h.broker.logs(id, 2, 2).await.unwrap().unwrap();
    assert_eq!(page.lines.iter().map(|line| line.seq).collect::<Vec<_>>(), [3, 4]);
    assert!(h.broker.logs(id, 5, 2).await.unwrap().unwrap().lines.is_empty());
}

pub async fn numbers_go_on_over_attempts_and_after_the_end(h: Harness) {
    let (id, run) = running(&h).await;
    h.broker.log(vec![batch(&run, &["a", "b"])], ROOM).await.unwrap();
    h.finish(&run, RunEnd::Retry { error: error("x"), delay: Duration::ZERO }).await;
    let worker = h.worker().await;
    let again = h.claim_one(&worker).await.run;
    h.broker.log(vec![LogBatch { attempt: 2, ..batch(&again, &["c"]) }], ROOM).await.unwrap();
    h.finish(&again, succeeded()).await;
    let logs = h.broker.logs(id, 0, 10).await.unwrap().unwrap();
    let lines: Vec<_> = logs.lines.iter().map(|line| (line.seq, line.attempt)).collect();
    assert_eq!(lines, [(1, 1), (2, 1), (3, 2)]);
}

pub async fn a_stale_run_adds_nothing_and_stops_no_other(h: Harness) {
    let (id, run) = running(&h).await;
    let stale = Run { token: RunToken::random(), ..run.clone() };
    let batches = vec![batch(&run, &["a"]), batch(&stale, &["no"]), LogBatch { first: 1, ..batch(&run, &["b"]) }];
    let answers = h.broker.log(batches, ROOM).await.unwrap();
    assert!(matches!(answers[..], [Ok(()), Err(BrokerError::LeaseLost), Ok(())]), "{answers:?}");
    assert_eq!(texts(&h, id).await, ["a", "b"]);
}

pub async fn over_the_limit_the_oldest_lines_go_and_are_counted(h: Harness) {
    let (id, run) = running(&h).await;
    let text = "x".repeat(1000);
    for n in 0..10 {
        h.broker.log(vec![LogBatch { first: 3 * n, ..batch(&run, &[&text, &text, &text]) }], 10_000).await.unwrap();
    }
    let logs = h.broker.logs(id, 0, 100).await.unwrap().unwrap();
    assert!((5..=10).contains(&logs.lines.len()), "{}", logs.lines.len());
    assert_eq!(logs.lines.len() as u64 + logs.dropped, 30);
    assert_eq!(logs.lines.last().unwrap().seq, 30, "the newest stay");
    assert_eq!(logs.lines[0].seq, 30 - logs.lines.len() as u64 + 1, "without a gap");
}

pub async fn a_batch_over_the_limit_keeps_its_newest_lines(h: Harness) {
    let (id, run) = running(&h).await;
    let text = "x".repeat(1000);
    let lines: Vec<&str> = std::iter::repeat_n(text.as_str(), 20).collect();
    h.broker.log(vec![batch(&run, &lines)], 5_000).await.unwrap();
    let logs = h.broker.logs(id, 0, 100).await.unwrap().unwrap();
    assert!((1..=5).contains(&logs.lines.len()), "{}", logs.lines.len());
    assert_eq!(logs.lines.last().unwrap().seq, 20);
    assert_eq!(logs.lines.len() as u64 + logs.dropped, 20);
}

pub async fn lines_that_the_worker_dropped_are_counted(h: Harness) {
    let (id, run) = running(&h).await;
    for (first, dropped) in [(0, 3), (4, 4)] {
        h.broker.log(vec![LogBatch { first, dropped, ..batch(&run, &["a"]) }], ROOM).await.unwrap();
    }
    h.broker.log(vec![LogBatch { first: 9, dropped: 5, ..batch(&run, &[]) }], ROOM).await.unwrap();
    assert_eq!(h.broker.logs(id, 0, 10).await.unwrap().unwrap().dropped, 12);
}

pub async fn a_batch_that_comes_again_adds_nothing(h: Harness) {
    let (id, run) = running(&h).await;
    let batches = [
        LogBatch { dropped: 2, ..batch(&run, &["a", "b"]) },
        LogBatch { first: 4, dropped: 3, ..batch(&run, &[]) },
        LogBatch { first: 7, ..batch(&run, &["c"]) },
    ];
    for sent in 1..=batches.len() {
        // Each one twice, after all that came before once more.
        for batch in batches[..sent].iter().chain([&batches[sent - 1]]) {
            let answers = h.broker.log(vec![batch.clone(), batch.clone()], ROOM).await.unwrap();
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        }
    }
    assert_eq!(texts(&h, id).await, ["a", "b", "c"]);
    assert_eq!(h.broker.logs(id, 0, 10).await.unwrap().unwrap().dropped, 5);
}

pub async fn of_a_batch_that_is_known_in_part_the_rest_is_added(h: Harness) {
    let (id, run) = running(&h).await;
    h.broker.log(vec![batch(&run, &["a", "b"])], ROOM).await.unwrap();
    h.broker.log(vec![LogBatch { first: 1, dropped: 1, ..batch(&run, &["b", "c"]) }], ROOM).await.unwrap();
    // Counted as handed over by then: a, b, c, and one that was thrown away.
    h.broker.log(vec![LogBatch { first: 3, dropped: 2, ..batch(&run, &[]) }], ROOM).await.unwrap();
    // What lies between never came.
    h.broker.log(vec![LogBatch { first: 8, ..batch(&run, &["i"]) }], ROOM).await.unwrap();
    assert_eq!(texts(&h, id).await, ["a", "b", "c", "i"]);
    assert_eq!(h.broker.logs(id, 0, 10).await.unwrap().unwrap().dropped, 2);
}

pub async fn another_run_of_the_job_begins_at_its_own_first_line(h: Harness) {
    let (id, run) = running(&h).await;
    h.broker.log(vec![batch(&run, &["a", "b"])], ROOM).await.unwrap();
    h.finish(&run, RunEnd::Retry { error: error("x"), delay: Duration::ZERO }).await;
    let worker = h.worker().await;
    let again = h.claim_one(&worker).await.run;
    for _ in 0..2 {
        h.broker.log(vec![LogBatch { attempt: 2, ..batch(&again, &["a"]) }], ROOM).await.unwrap();
    }
    assert_eq!(texts(&h, id).await, ["a", "b", "a"]);
}

pub async fn a_job_that_is_not_there_has_no_log_and_a_silent_one_an_empty_log(h: Harness) {
    assert!(h.broker.logs(JobId::new(&queue_name("default")), 0, 10).await.unwrap().is_none());
    for state in State::ALL {
        let id = h.job_in(state, state.as_str()).await;
        assert!(h.broker.logs(id, 0, 10).await.unwrap().unwrap().lines.is_empty());
    }
}
