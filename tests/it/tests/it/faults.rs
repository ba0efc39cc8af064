//! Clients that ask too much of a server: too many connections, too large a body, both while others are being answered.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::util::Project;

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        .unwrap();
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[test]
fn ten_thousand_open_connections_are_all_answered() {
    let open = rlimit::increase_nofile_limit(30_000).unwrap();
    let wanted = 10_000.min(usize::try_from(open).unwrap() - 500);
    assert!(
        wanted == 10_000,
        "only {open} files may be open here: raise the limit (`ulimit -n 30000`)"
    );
    let project = Project::small();
    let server = project.up(&[]);
    let address = server.url().trim_start_matches("http://").to_owned();
    let before = resident_kib(server.pid());
    let mut streams = Vec::with_capacity(wanted);
    for _ in 0..wanted {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        let answer = ask(stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let row = json!({ "dataframe_records": [{ "x": 1.0, "colour": "red" }] });
    let (status, answer) = server.tell("/invocations/small", &row);
    assert_eq!(status, 200, "{answer}");
    let each = resident_kib(server.pid()).saturating_sub(before) / wanted as u64;
    assert!(each < 32, "{each} KiB a connection");
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_and_not_kept() {
    let project = Project::small();
    let server = project.up(&[]);
    let address = server.url().trim_start_matches("http://").to_owned();
    let before = resident_kib(server.pid());
    let mut stream = TcpStream::connect(&address).unwrap();
    let length = 100 << 20;
    let head = format!(
        "POST /v2/models/small/infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b' '; 1 << 20];
    for _ in 0..100 {
        // Once it has refused, the server may stop reading.
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    // The answer may be lost in the reset of a connection that was still being written to; that it was refused shows in the memory.
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413"),
        "{answer}"
    );
    std::thread::sleep(Duration::from_millis(200));
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < 40_000, "{grown} KiB");
    let mut stream = TcpStream::connect(&address).unwrap();
    assert!(ask(&mut stream).starts_with("HTTP/1.1 200"));
}
