//! Measures pages: `pages_speed DSN FILE`, where each line of FILE is a viewer (`-`: sees all) and a path. Prints the median time of 5 and the bytes that went over the wire, compressed.
//! The login of DSN is one of the pages: `portal_audit_reader` and `portal_audit_web` are granted to it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use portal_audit::{
    config::{self, Access, Pages},
    metrics::Metrics,
    serve, web,
};
use std::{error::Error, net::SocketAddr, sync::Arc, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const TIMES: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dsn, file] = arguments.as_slice() else {
        return Err("usage: pages_speed DSN FILE".into());
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let access = Access::Proxy { header: "x-user".into(), peers: vec![address.ip()] };
    let pages = Pages { conninfo: config::conninfo(dsn)?, access, admins: vec!["-".to_owned()] };
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        match serve::serve(listener, Arc::new(Metrics::default()), web::routes(&pages)).await {}
    });
    println!("{:>9} {:>8}  status  viewer path", "median ms", "bytes");
    for line in std::fs::read_to_string(file)?.lines() {
        let Some((viewer, path)) = line.split_once(' ') else { continue };
        let (mut times, mut last) = (Vec::new(), (0, String::new()));
        for _ in 0..TIMES {
            let begun = Instant::now();
            last = ask(address, viewer, path).await?;
            times.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        times.sort_by(f64::total_cmp);
        let median = times.get(TIMES / 2).copied().unwrap_or_default();
        println!("{median:>9.1} {:>8}  {}  {viewer} {path}", last.0, last.1);
    }
    Ok(())
}

/// Bytes of the body, as they came, and the status.
async fn ask(
    address: SocketAddr,
    viewer: &str,
    path: &str,
) -> Result<(usize, String), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAccept-Encoding: gzip\r\nAccept: text/html\r\nx-user: {viewer}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no head")?;
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).into_owned();
    Ok((answer.len() - head - 4, status))
}
