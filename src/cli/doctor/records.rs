//! `--fsck` and `--repair`: what of the broker's records disagrees, one line each.

use super::advice;
use crate::broker::{Checked, Note, RecordFault, SharedBroker};

const SUBJECT: &str = "records";

pub(super) async fn check(broker: &SharedBroker, repair: bool) -> Vec<Note> {
    match broker.check_records(repair).await {
        Ok(checked) => told(&checked, repair),
        Err(error) => vec![Note::wrong(SUBJECT, format!("they cannot be gone through: {error}"), advice(&error))],
    }
}

fn told(checked: &Checked, repair: bool) -> Vec<Note> {
    let mut notes: Vec<Note> = checked.faults.iter().map(|fault| one(fault, repair)).collect();
    notes.extend(checked.uncounted.iter().map(|queue| {
        let what = format!("the queue {queue} changed all the while: its counts were not compared");
        Note::warning(SUBJECT, what, "do it again when the queue is quieter")
    }));
    let jobs = match checked.examined {
        1 => "1 job".to_owned(),
        count => format!("{count} jobs"),
    };
    let mended = checked.faults.iter().filter(|fault| fault.repaired).count();
    notes.push(match checked.faults.len() {
        0 => Note::ok(SUBJECT, format!("{jobs} examined, nothing disagrees")),
        count => Note::ok(SUBJECT, format!("{jobs} examined, {count} faults, {mended} mended")),
    });
    notes
}

fn one(fault: &RecordFault, repair: bool) -> Note {
    let job = fault.job.map_or(String::new(), |id| format!(" job {id}:"));
    let what = format!("{}:{job} {}", fault.place, fault.what);
    if fault.repaired {
        Note::warning(SUBJECT, what, "mended")
    } else if repair {
        Note::wrong(SUBJECT, what, "this cannot be mended: bring back a backup")
    } else {
        Note::wrong(SUBJECT, what, "`ryemill doctor --fsck --repair` mends it")
    }
}
