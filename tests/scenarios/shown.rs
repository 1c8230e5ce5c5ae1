//! How effects are written in a story: one line each.

use std::collections::BTreeMap;

use tidemill::effect::{FileName, FileOp, Stem};
use tidemill::partition::{Answer, Effect, FetchPosition, IsrChange, ReadFound};

/// Segment files without their leading zeros.
fn file(name: FileName) -> String {
    let full = name.to_string();
    match name.stem {
        Stem::Named(_) => full,
        _ => {
            let short = full.trim_start_matches('0');
            if short.starts_with('.') { format!("0{short}") } else { short.to_owned() }
        }
    }
}

/// What kind of operation it is; a story completes one by this name.
pub fn kind(op: &FileOp) -> &'static str {
    match op {
        FileOp::MakeDir => "make-dir",
        FileOp::SyncParent => "sync-parent",
        FileOp::SyncDir => "sync-dir",
        FileOp::List => "list",
        FileOp::RetireDir => "retire-dir",
        FileOp::StrayDir => "stray-dir",
        FileOp::DeleteDir => "delete-dir",
        FileOp::RenameDir { .. } => "rename-dir",
        FileOp::CopyFrom { .. } => "copy-from",
        FileOp::Create { .. } => "create",
        FileOp::Append { .. } => "append",
        FileOp::Write { .. } => "write",
        FileOp::Read { .. } => "read",
        FileOp::ModifiedAt { .. } => "modified-at",
        FileOp::Sync { .. } => "sync",
        FileOp::Allocate { .. } => "allocate",
        FileOp::Truncate { .. } => "truncate",
        FileOp::Rename { .. } => "rename",
        FileOp::Delete { .. } => "delete",
    }
}

/// One file operation.
pub fn op(op: &FileOp) -> String {
    let kind = kind(op);
    match op {
        FileOp::Create { file: name, .. }
        | FileOp::ModifiedAt { file: name }
        | FileOp::Sync { file: name }
        | FileOp::Delete { file: name } => {
            format!("{kind} {}", file(*name))
        }
        FileOp::Append { base_offset, position, length } => {
            let name = file(Stem::Log(*base_offset).into());
            format!("{kind} {name} at {position}, {length} bytes")
        }
        FileOp::Write { file: name, position, bytes } => {
            format!("{kind} {} at {position}, {} bytes", file(*name), bytes.len())
        }
        FileOp::Read { file: name, position, length } => {
            format!("{kind} {} at {position}, {length} bytes", file(*name))
        }
        FileOp::Allocate { file: name, position, length, .. } => {
            format!("{kind} {length} bytes of {} at {position}", file(*name))
        }
        FileOp::Truncate { file: name, length } => format!("{kind} {} to {length} bytes", file(*name)),
        FileOp::Rename { from, to } => format!("{kind} {} to {}", file(*from), file(*to)),
        _ => kind.to_owned(),
    }
}

/// One effect; `names` are the stories' names of the requests.
pub fn effect(effect: &Effect, names: &BTreeMap<u32, String>) -> String {
    match effect {
        Effect::File(_, planned) => op(planned),
        Effect::Reply(to, given) => format!("{}: {}", names[&to.request], answer(given)),
        Effect::StoreLogStart(offset) => format!("stores the log start {offset}"),
        Effect::LowerLogStart(offset) => format!("lowers the log start to {offset}"),
        Effect::EndTurn => "wants the end of the turn".to_owned(),
        Effect::Retired => "retired".to_owned(),
        Effect::Gone => "gone".to_owned(),
        Effect::Offline => "OFFLINE".to_owned(),
        Effect::Following => "has another fetch position".to_owned(),
        Effect::AlterIsr(change) => isr_change(change),
    }
}

fn isr_change(change: &IsrChange) -> String {
    let isr: Vec<String> = change.isr.iter().map(|(id, epoch)| format!("{id}:{epoch}")).collect();
    format!("wants the ISR {} of partition epoch {}", isr.join(","), change.partition_epoch)
}

/// What a follower wants next.
pub fn position(position: Option<FetchPosition>) -> String {
    let Some(wanted) = position else { return "nothing".to_owned() };
    let FetchPosition { leader, leader_epoch, fetch_offset, last_fetched_epoch, log_start_offset } = wanted;
    format!(
        "{fetch_offset} after epoch {last_fetched_epoch} of broker {leader}, epoch {leader_epoch}; start \
         {log_start_offset}"
    )
}

pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Appended { base_offset: ..0, .. } => "appended long ago".to_owned(),
        Answer::Appended { base_offset, log_append_time_ms: -1, .. } => format!("appended at {base_offset}"),
        Answer::Appended { base_offset, log_append_time_ms, .. } => {
            format!("appended at {base_offset}, stamped {log_append_time_ms}")
        }
        Answer::Read(ReadFound { diverging: Some((epoch, end_offset)), .. }) => {
            format!("the logs part: epoch {epoch} ends at {end_offset}")
        }
        Answer::Read(ReadFound { preferred: Some(id), .. }) => format!("read from broker {id}"),
        Answer::Read(ReadFound { span, high_watermark, last_stable_offset, log_start_offset, .. }) => {
            let found = span.map_or("nothing".to_owned(), |span| {
                let name = file(Stem::Log(span.segment_base_offset).into());
                format!("{} bytes of {name} at {}", span.length, span.position)
            });
            format!(
                "{found}; watermark {high_watermark}, stable {last_stable_offset}, start {log_start_offset}"
            )
        }
        Answer::Offset { offset, timestamp_ms, leader_epoch } => {
            format!("offset {offset}, timestamp {timestamp_ms}, leader epoch {leader_epoch}")
        }
        Answer::EpochEnd { leader_epoch, end_offset } => {
            format!("leader epoch {leader_epoch} ends at {end_offset}")
        }
        Answer::Deleted { log_start_offset } => format!("deleted, start {log_start_offset}"),
        Answer::Size(bytes) => format!("{bytes} bytes"),
        Answer::Placed(placed) => format!("{} bytes in directory {}", placed.size_bytes, placed.directory),
        Answer::Moves => "moves".to_owned(),
        Answer::Producers(active) => format!("{} producers", active.len()),
        Answer::Failed { error, .. } => format!("{error:?}"),
        Answer::Fired => "fired".to_owned(),
        Answer::News => "news".to_owned(),
    }
}
