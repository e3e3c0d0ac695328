//! Starts the sidecar, reads what it says, and starts it again when it has ended.

use std::io::{BufReader, Write};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tauri::Runtime;

use crate::bridge::Bridge;
use crate::command::SidecarCommand;
use crate::limits::{
    BACKOFF_MS, DISCOVER_S, HEALTHY_S, KEPT_LINE_BYTES, MAX_BACKOFF_MS, MAX_LINE_BYTES, MAX_LOG_LINE_BYTES,
    MAX_REQUESTS, MAX_STARTS, READ_BYTES, REST_S,
};
use crate::lines::{Line, read_line, skip_line};
use crate::process::Process;

/// Runs until the bridge is closed. The thread that calls it starts the processes, so it has to live as long as the app.
pub fn supervise<R: Runtime>(bridge: &Arc<Bridge<R>>) {
    let mut starts = 0;
    while !bridge.is_closed() {
        starts += 1;
        let (reason, lived) = run(bridge);
        log::warn!("the sidecar has ended: {reason}");
        bridge.ended(&reason);
        if lived >= HEALTHY_S {
            starts = 1;
        }
        let goes_on =
            if starts < MAX_STARTS { bridge.back_off(&reason, back_off(starts)) } else { bridge.give_up(&reason) };
        if !goes_on {
            break;
        }
    }
    bridge.is_over();
}

fn back_off(starts: u32) -> Duration {
    Duration::from_millis((BACKOFF_MS << (starts - 1).min(16)).min(MAX_BACKOFF_MS))
}

enum News {
    /// It has said what it implements.
    Ready,
    /// It has ended, and how.
    Ended(String),
}

/// One process, from its start to its end. Says why it ended, and how long it served.
fn run<R: Runtime>(bridge: &Arc<Bridge<R>>) -> (String, Duration) {
    let command = match &bridge.settings.command {
        Some(command) => Ok(command.clone()),
        None => SidecarCommand::bundled(&bridge.app),
    };
    let started = command.and_then(|command| {
        Process::start(&command).map_err(|error| format!("{} can't be started: {error}", command.program.display()))
    });
    let (process, pipes) = match started {
        Ok((process, pipes)) => (Arc::new(process), pipes),
        Err(reason) => return (reason, Duration::ZERO),
    };
    log::info!("the sidecar runs as process {}", process.id);

    let (requests, lines) = sync_channel(MAX_REQUESTS);
    // Each comes once.
    let (tell, news) = sync_channel(2);
    let (rest, has_read) = sync_channel(1);
    let is_over = Arc::new(AtomicBool::new(false));

    thread::spawn(move || write(pipes.stdin, &lines));
    thread::spawn(move || log_lines(pipes.stderr));
    {
        let (bridge, process, is_over) = (bridge.clone(), process.clone(), is_over.clone());
        thread::spawn(move || {
            let ended = read(&bridge, pipes.stdout, &process, &is_over);
            // Whatever it still does, nobody hears of it.
            process.kill();
            let _ = rest.send(ended);
        });
    }
    {
        let (process, tell) = (process.clone(), tell.clone());
        thread::spawn(move || tell.send(News::Ended(process.wait())));
    }

    if !bridge.began(process.clone(), requests, move || drop(tell.try_send(News::Ready))) {
        process.kill();
    }
    let (mut served_since, mut problem, mut status) = (None, None, None);
    match news.recv_timeout(DISCOVER_S) {
        Ok(News::Ready) => served_since = Some(Instant::now()),
        Ok(News::Ended(how)) => status = Some(how),
        Err(_) => {
            problem = Some("it does not say what it implements".to_owned());
            process.kill();
        }
    }
    let how_it_ended = |piece| match piece {
        News::Ended(how) => Some(how),
        News::Ready => None,
    };
    let status = status.or_else(|| news.iter().find_map(how_it_ended)).expect("the thread that waits says so");
    let served = served_since.map_or(Duration::ZERO, |since| since.elapsed());

    // What the pipe still holds is little, so it isn't held back.
    is_over.store(true, Ordering::Release);
    bridge.delivery.wake();
    let broken = match has_read.recv_timeout(REST_S) {
        Ok(Err(broken)) => Some(broken),
        _ => None,
    };
    (problem.or(broken).unwrap_or(status), served)
}

fn write(mut stdin: ChildStdin, lines: &Receiver<Vec<u8>>) {
    for line in lines {
        if stdin.write_all(&line).is_err() {
            return;
        }
    }
}

/// Hands on lines until there are no more. An error says what was wrong with one.
fn read<R: Runtime>(
    bridge: &Arc<Bridge<R>>,
    stdout: ChildStdout,
    process: &Process,
    is_over: &AtomicBool,
) -> Result<(), String> {
    let mut source = BufReader::with_capacity(READ_BYTES, stdout);
    let mut line = Vec::new();
    loop {
        bridge.delivery.wait_for_room(|| is_over.load(Ordering::Acquire));
        match read_line(&mut source, &mut line, MAX_LINE_BYTES) {
            Ok(Line::Whole) => bridge.take_line(&line, process)?,
            Ok(Line::TooLong) => return Err(format!("a line is longer than {MAX_LINE_BYTES} bytes")),
            // A process that was killed may have been in the middle of one.
            Ok(Line::Unended | Line::End) => return Ok(()),
            Err(error) => return Err(format!("nothing can be read: {error}")),
        }
        line.clear();
        line.shrink_to(KEPT_LINE_BYTES);
    }
}

/// What the sidecar writes there are warnings and errors, unless it is told otherwise.
fn log_lines(stderr: ChildStderr) {
    let mut source = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        let read = read_line(&mut source, &mut line, MAX_LOG_LINE_BYTES);
        let text = String::from_utf8_lossy(&line);
        match read {
            Ok(Line::Whole | Line::Unended) => log::warn!(target: "clawpal-sidecar", "{}", text.trim_end()),
            Ok(Line::TooLong) => {
                log::warn!(target: "clawpal-sidecar", "{text} …");
                if skip_line(&mut source).is_err() {
                    return;
                }
            }
            Ok(Line::End) | Err(_) => return,
        }
    }
}

/// Starts the two threads of the bridge. They end when it is closed.
pub fn spawn<R: Runtime>(bridge: &Arc<Bridge<R>>) {
    let emitting = bridge.clone();
    thread::spawn(move || emitting.delivery.run(&emitting.app));
    let supervised = bridge.clone();
    thread::spawn(move || supervise(&supervised));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_waits_twice_as_long_as_the_one_before_up_to_a_limit() {
        let waits: Vec<u128> = (1..=8).map(|starts| back_off(starts).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
