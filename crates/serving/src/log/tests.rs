//! What the log promises: acknowledged is durable, nothing doubles, names are never used again.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::testing::any_batch;

fn open(dir: &Path) -> (PredictionLog, Recovery) {
    PredictionLog::open(dir, LogOptions::default()).unwrap()
}

async fn all(log: &PredictionLog) -> Vec<String> {
    let (from, until) = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));
    let batches = log.live_batches(&"flights".into(), from, until).await.unwrap();
    batches.iter().map(|batch| batch.request_id.clone()).collect()
}

/// A closed log of `count` batches in one segment; returns the lengths after each batch.
async fn written(dir: &Path, count: u64) -> Vec<u64> {
    let (log, _) = open(dir);
    let mut lengths = Vec::new();
    for seed in 0..count {
        log.append(any_batch(seed, 3)).await.unwrap();
        lengths.push(fs::metadata(SegmentId(0).path(dir)).unwrap().len());
    }
    lengths
}

#[tokio::test]
async fn a_write_cut_short_at_any_byte_loses_nothing_acknowledged_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let lengths = written(dir.path(), 3).await;
    let bytes = fs::read(SegmentId(0).path(dir.path())).unwrap();
    assert_eq!(bytes.len() as u64, lengths[2]);
    let options = LogOptions::default();
    for cut in lengths[1]..=lengths[2] {
        let dir = TempDir::new().unwrap();
        fs::write(SegmentId(0).path(dir.path()), &bytes[..cut as usize]).unwrap();
        let (log, found) = PredictionLog::open(dir.path(), options.clone()).unwrap();
        let whole = if cut == lengths[2] { 3 } else { 2 };
        let torn = if whole == 3 { 0 } else { cut - lengths[1] };
        let expected = Recovery {
            segments: 1,
            batches: whole,
            truncated_bytes: torn,
        };
        assert_eq!(found, expected, "cut at {cut}");
        // The caller of the lost batch was never told, and sends it again.
        if whole == 2 {
            log.append(any_batch(2, 3)).await.unwrap();
        }
        drop(log);
        let (log, found) = PredictionLog::open(dir.path(), options.clone()).unwrap();
        assert_eq!(found.truncated_bytes, 0);
        assert_eq!(
            all(&log).await,
            ["request-0", "request-1", "request-2"],
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn a_flipped_bit_is_cut_off_the_last_segment_with_what_follows_kept_aside() {
    let dir = TempDir::new().unwrap();
    let lengths = written(dir.path(), 3).await;
    let path = SegmentId(0).path(dir.path());
    let bytes = fs::read(&path).unwrap();
    let mut damaged = bytes.clone();
    damaged[lengths[0] as usize + 20] ^= 4;
    fs::write(&path, &damaged).unwrap();
    let (log, found) = open(dir.path());
    assert_eq!(
        (found.batches, found.truncated_bytes),
        (1, lengths[2] - lengths[0])
    );
    let kept = fs::read(path.with_extension("cut")).unwrap();
    assert_eq!(kept, damaged[lengths[0] as usize..]);
    assert_eq!(all(&log).await, ["request-0"]);
}

#[tokio::test]
async fn zeros_at_the_end_of_the_last_segment_are_no_records() {
    let dir = TempDir::new().unwrap();
    written(dir.path(), 1).await;
    let path = SegmentId(0).path(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 4096]);
    fs::write(&path, bytes).unwrap();
    let (_log, found) = open(dir.path());
    assert_eq!((found.batches, found.truncated_bytes), (1, 4096));
}

#[tokio::test]
async fn damage_in_an_older_segment_names_file_and_offset() {
    let dir = TempDir::new().unwrap();
    let first = {
        let (log, _) = open(dir.path());
        log.append(any_batch(0, 3)).await.unwrap();
        let first = log.seal().await.unwrap().unwrap();
        log.append(any_batch(1, 3)).await.unwrap();
        first
    };
    let path = first.path(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = PredictionLog::open(dir.path(), LogOptions::default()).unwrap_err();
    assert_eq!(error.code(), "log_corrupt");
    assert!(
        error
            .to_string()
            .contains("00000000000000000000.wal` at byte 0: checksum"),
        "{error}"
    );
}

#[tokio::test]
async fn a_record_of_an_unknown_format_is_refused_and_not_cut_off() {
    let dir = TempDir::new().unwrap();
    let mut bytes = record::encode(None, &any_batch(0, 1)).unwrap();
    bytes[record::HEADER] = 9;
    let crc = crc32fast::hash(&bytes[record::HEADER..]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    fs::write(SegmentId(0).path(dir.path()), &bytes).unwrap();
    let error = PredictionLog::open(dir.path(), LogOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("record format 9, expected 1 or 2"),
        "{error}"
    );
    assert_eq!(fs::read(SegmentId(0).path(dir.path())).unwrap(), bytes);
}

#[tokio::test]
async fn a_full_disk_refuses_the_append_and_leaves_the_log_whole_until_there_is_space() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(AtomicU64::new(u64::MAX));
    let options = LogOptions {
        disk: Some(Arc::clone(&disk)),
        ..LogOptions::default()
    };
    let (log, _) = PredictionLog::open(dir.path(), options).unwrap();
    log.append(any_batch(0, 3)).await.unwrap();
    let path = SegmentId(0).path(dir.path());
    let length = fs::metadata(&path).unwrap().len();
    for left in [0, 1, 8, length - 1] {
        disk.store(left, Ordering::SeqCst);
        let error = log.append(any_batch(1, 3)).await.unwrap_err();
        assert_eq!(error.code(), "log_full");
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            length,
            "with {left} bytes left"
        );
        assert_eq!(all(&log).await, ["request-0"]);
    }
    disk.store(u64::MAX, Ordering::SeqCst);
    log.append(any_batch(2, 3)).await.unwrap();
    assert_eq!((log.metrics().dropped_rows, log.metrics().appended_rows), (12, 6));
    drop(log);
    let (log, found) = open(dir.path());
    assert_eq!(found.truncated_bytes, 0);
    assert_eq!(all(&log).await, ["request-0", "request-2"]);
}

#[tokio::test]
async fn a_disk_that_fails_to_keep_what_it_was_given_is_given_it_again_and_nothing_more_until_it_has_it() {
    let dir = TempDir::new().unwrap();
    let failures = Arc::new(AtomicU64::new(0));
    let options = LogOptions {
        durability: Durability::Written {
            sync_every: Duration::from_millis(5),
        },
        fsync_failures: Some(Arc::clone(&failures)),
        ..LogOptions::default()
    };
    let (log, _) = PredictionLog::open(dir.path(), options).unwrap();
    log.append(any_batch(0, 3)).await.unwrap();
    let forced = log.metrics().fsyncs;
    while log.metrics().fsyncs == forced {
        tidemill_core::clock::real_sleep(Duration::from_millis(1)).await;
    }
    failures.store(u64::MAX, Ordering::SeqCst);
    log.append(any_batch(1, 3)).await.unwrap();
    let error = loop {
        tidemill_core::clock::real_sleep(Duration::from_millis(1)).await;
        // Acknowledged until the failure is seen, refused from then on.
        match log.append(any_batch(2, 3)).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "log_failed");
    let held = all(&log).await.len();
    failures.store(0, Ordering::SeqCst);
    while log.append(any_batch(3, 3)).await.is_err() {
        tidemill_core::clock::real_sleep(Duration::from_millis(1)).await;
    }
    assert!(log.metrics().rewritten_bytes > 0);
    let mut expected = all(&log).await;
    assert_eq!((expected.len(), expected[1].as_str()), (held + 1, "request-1"));
    drop(log);
    let (log, found) = open(dir.path());
    expected.truncate(held + 1);
    assert_eq!((all(&log).await, found.truncated_bytes), (expected, 0));
}

/// `mount -t tmpfs -o size=64k none /mnt/small && TIDEMILL_SMALL_DISK=/mnt/small cargo test -p tidemill-serving -- --ignored`
#[tokio::test]
#[ignore = "needs a small file system in TIDEMILL_SMALL_DISK"]
async fn a_file_system_that_is_really_full_refuses_and_recovers() {
    let dir = PathBuf::from(std::env::var("TIDEMILL_SMALL_DISK").unwrap());
    let (log, _) = open(&dir);
    let mut written = Vec::new();
    let error = loop {
        let seed = written.len() as u64;
        match log.append(any_batch(seed, 10)).await {
            Ok(()) => written.push(format!("request-{seed}")),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), "log_full");
    assert!(written.len() > 3);
    // Nothing can be made on a full disk either, so sealing may fail; removing what is sealed must work.
    drop(log);
    let (log, found) = open(&dir);
    assert_eq!((all(&log).await, found.truncated_bytes), (written, 0));
    log.append(any_batch(900, 10)).await.unwrap_err();
    log.remove(&log.sealed()[0]).await.unwrap();
    log.append(any_batch(901, 10)).await.unwrap();
    assert_eq!(all(&log).await, ["request-901"]);
}

#[tokio::test]
async fn sealing_reading_and_removing_moves_batches_out_of_the_log() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    assert_eq!(log.seal().await.unwrap(), None);
    log.append(any_batch(0, 3)).await.unwrap();
    log.append(any_batch(1, 2)).await.unwrap();
    let open_segment = SegmentId(0);
    assert!(log.remove(&open_segment).await.is_err());
    assert_eq!((log.sealed(), log.live_stats().open_batches), (vec![], 2));
    let sealed = log.seal().await.unwrap().unwrap();
    log.append(any_batch(2, 1)).await.unwrap();
    assert_eq!((sealed, log.sealed()), (open_segment, vec![open_segment]));

    let batches = log.reader(sealed).unwrap().next_part(100).unwrap();
    let encoded = |batch: &PredictionBatch| record::encode(None, batch).unwrap();
    let expected = [any_batch(0, 3), any_batch(1, 2)];
    let found = batches
        .into_iter()
        .map(|entry| encoded(&entry.into_batch().unwrap()));
    assert!(found.eq(expected.iter().map(encoded)));

    let id = expected[1].ids[1].clone();
    let batch = log.find(&id).await.unwrap().unwrap().into_batch().unwrap();
    assert_eq!(batch.request_id, "request-1");
    let at = Timestamp::from_micros;
    let window = log.live_batches(&"flights".into(), at(1), at(2)).await.unwrap();
    assert_eq!((window.len(), window[0].request_id.as_str()), (1, "request-1"));
    assert!(
        log.live_batches(&"other".into(), at(0), at(9))
            .await
            .unwrap()
            .is_empty()
    );

    log.remove(&sealed).await.unwrap();
    log.remove(&sealed).await.unwrap();
    assert!(log.find(&id).await.unwrap().is_none() && log.sealed().is_empty());
    assert_eq!(all(&log).await, ["request-2"]);
    assert!(!sealed.path(dir.path()).exists());
    let stats = log.live_stats();
    assert_eq!((stats.segments, stats.batches, stats.rows), (1, 1, 1));
}

#[tokio::test]
async fn a_segment_name_is_never_used_again_even_when_all_segments_are_removed() {
    let dir = TempDir::new().unwrap();
    for round in 0..4 {
        let (log, _) = open(dir.path());
        log.append(any_batch(round, 1)).await.unwrap();
        let sealed = log.seal().await.unwrap().unwrap();
        assert_eq!(sealed, SegmentId(round));
        log.remove(&sealed).await.unwrap();
    }
}

#[tokio::test]
async fn a_recovered_segment_never_grows() {
    let dir = TempDir::new().unwrap();
    written(dir.path(), 2).await;
    let (log, _) = open(dir.path());
    let sealed = log.sealed();
    assert_eq!(sealed, [SegmentId(0)]);
    log.append(any_batch(9, 1)).await.unwrap();
    let mut reader = log.reader(sealed[0]).unwrap();
    assert_eq!(reader.next_part(1).unwrap().len(), 1);
    assert_eq!(reader.next_part(100).unwrap().len(), 1);
    assert!(reader.next_part(100).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_share_fsyncs_and_segments_are_sealed_by_size() {
    let dir = TempDir::new().unwrap();
    let options = LogOptions {
        segment_bytes: 4_000,
        durability: Durability::Synced,
        ..LogOptions::default()
    };
    let (log, _) = PredictionLog::open(dir.path(), options).unwrap();
    let mut tasks = Vec::new();
    for seed in 0..200 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move { log.append(any_batch(seed, 2)).await }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let metrics = log.metrics();
    assert_eq!((metrics.appended_batches, metrics.appended_rows), (200, 400));
    assert!(metrics.fsyncs < 200, "{} fsyncs", metrics.fsyncs);
    // A full segment is sealed after its batches are acknowledged; this waits for the writer.
    log.seal().await.unwrap();
    assert!(!log.sealed().is_empty());
    drop(log);
    let (log, found) = open(dir.path());
    assert_eq!((found.batches, log.live_stats().rows), (200, 400));
}

#[tokio::test]
async fn an_append_whose_caller_went_away_is_still_written() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    let mut append = Box::pin(log.append(any_batch(0, 1)));
    // Polled once, it is queued; then its caller hangs up.
    tokio::select! {
        biased;
        _ = &mut append => {}
        () = std::future::ready(()) => {}
    }
    drop(append);
    log.append(any_batch(1, 1)).await.unwrap();
    assert_eq!(all(&log).await, ["request-0", "request-1"]);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path());
    let error = PredictionLog::open(dir.path(), LogOptions::default()).unwrap_err();
    assert!(
        error.to_string().contains("does another process use it?"),
        "{error}"
    );
    drop(log);
    open(dir.path());
}

#[tokio::test]
#[ignore = "the victim of the next test, which starts it"]
async fn a_process_that_appends_until_it_is_killed() {
    let dir = std::env::var("TIDEMILL_KILLED_LOG").unwrap();
    let synced = std::env::var_os("TIDEMILL_SYNCED_LOG").is_some();
    let durability = if synced {
        Durability::Synced
    } else {
        Durability::default()
    };
    let options = LogOptions {
        segment_bytes: 20_000,
        durability,
        ..LogOptions::default()
    };
    let (log, found) = PredictionLog::open(Path::new(&dir), options).unwrap();
    for seed in found.batches as u64.. {
        log.append(any_batch(seed, 5)).await.unwrap();
        println!("acknowledged {seed}");
    }
}

#[test]
fn a_process_killed_again_and_again_loses_nothing_acknowledged_and_doubles_nothing() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for life in 0..6 {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        if life % 2 == 1 {
            victim.env("TIDEMILL_SYNCED_LOG", "1");
        }
        let mut child = victim
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("log::tests::a_process_that_appends_until_it_is_killed")
            .env("TIDEMILL_KILLED_LOG", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = 0;
        let mut last = None;
        for line in output.lines() {
            let line = line.unwrap();
            let Some(place) = line.find("acknowledged ") else {
                continue;
            };
            last = Some(line[place + 13..].parse::<u64>().unwrap());
            acknowledged += 1;
            if acknowledged == 10 + 7 * life {
                // SIGKILL; what was printed until it struck is still in the pipe.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (log, _) = open(dir.path());
        let found = runtime.block_on(all(&log));
        assert!(found.len() as u64 > last.unwrap(), "life {life}");
        let expected: Vec<String> = (0..found.len()).map(|seed| format!("request-{seed}")).collect();
        assert_eq!(found, expected, "life {life}");
    }
}
