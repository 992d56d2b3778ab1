//! A client that costs little: blocking sockets kept alive, one thread each, bodies counted and thrown away. It shares
//! the processor with what it measures, so every cycle it saves is one it does not blur.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::support::{RedisServer, median, process_seconds};

/// Something to ask for pages.
pub struct Station {
    pub address: SocketAddr,
    /// One request a page.
    pub requests: Vec<Vec<u8>>,
    /// Bytes of each page, the same for every station of a size.
    pub lengths: Vec<usize>,
}

/// What one round gave.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub pages_per_second: f64,
    /// Median.
    pub micros: f64,
    /// Microseconds of processor time a page: the servers of this process (without the load's own threads) and Redis.
    /// It hardly moves when strangers share the machine.
    pub processor: f64,
}

impl Station {
    /// Asks for random pages over `connections` for `time`.
    pub fn load(&self, redis: &RedisServer, connections: u64, time: Duration, seed: u64) -> anyhow::Result<Sample> {
        let spent = || anyhow::Ok(process_seconds("self")? + redis.processor_seconds()?);
        let (began, before) = (Instant::now(), spent()?);
        let done: Vec<Done> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..connections)
                .map(|n| scope.spawn(move || self.connection(time, seed ^ (n << 32))))
                .collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            joined.collect::<anyhow::Result<_>>()
        })?;
        let elapsed = began.elapsed().as_secs_f64();
        let own: f64 = done.iter().map(|done| done.processor).sum();
        let took: Vec<f64> = done.into_iter().flat_map(|done| done.took).collect();
        Ok(Sample {
            pages_per_second: took.len() as f64 / elapsed,
            micros: median(&took),
            processor: (spent()? - before - own) * 1e6 / took.len() as f64,
        })
    }

    fn connection(&self, time: Duration, seed: u64) -> anyhow::Result<Done> {
        let mut client = Client::connect(self.address)?;
        let mut took = Vec::new();
        let began = Instant::now();
        let mut state = seed | 1;
        while began.elapsed() < time {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let page = (state % self.requests.len() as u64) as usize;
            let asked = Instant::now();
            let length = client.ask(&self.requests[page], |_| {})?;
            took.push(asked.elapsed().as_secs_f64() * 1e6);
            ensure!(
                length == self.lengths[page],
                "page {page} has {length} bytes, not {}",
                self.lengths[page]
            );
        }
        Ok(Done {
            took,
            processor: thread_seconds()?,
        })
    }
}

/// What one connection did.
struct Done {
    /// Microseconds of each page.
    took: Vec<f64>,
    /// Seconds of processor time of its thread.
    processor: f64,
}

fn thread_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanos / 1e9)
}

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Client {
            stream,
            buffer: vec![0; 256 << 10],
        })
    }

    /// Sends a request and reads its answer; returns the bytes of its body, which goes to `body` piece by piece.
    pub fn ask(&mut self, request: &[u8], mut body: impl FnMut(&[u8])) -> anyhow::Result<usize> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        let (length, start) = loop {
            filled += self.read(filled)?;
            if let Some(at) = self.buffer[..filled]
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break (length(&self.buffer[..at])?, at + 4);
            }
        };
        let mut got = filled - start;
        body(&self.buffer[start..filled]);
        while got < length {
            let read = self.read(0)?;
            body(&self.buffer[..read]);
            got += read;
        }
        Ok(got)
    }

    fn read(&mut self, at: usize) -> anyhow::Result<usize> {
        let read = self.stream.read(&mut self.buffer[at..])?;
        ensure!(read > 0, "the server closed the connection");
        Ok(read)
    }
}

/// The content length of a good answer.
fn length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("an answer that is not 200: {head}");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse())
    });
    Ok(length.context("an answer without its length")??)
}
