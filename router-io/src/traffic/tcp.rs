//! One TCP stream for a set time, counted where it arrives.

use rustix::net::sockopt::set_tcp_congestion;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes per call.
const CHUNK: usize = 256 << 10;
/// Congestion control of the streams, where the kernel has it: one that fills whatever is there. BBR, which a host may have for
/// its default, sends at a rate that it has measured, and finds another one each time.
const CONGESTION: &str = "cubic";
/// How long a peer may take for anything else than the transfer itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TcpRate {
    /// Bytes.
    pub bytes: u64,
    /// From the first byte to the last.
    pub seconds: f64,
}

impl TcpRate {
    /// Bits per second.
    pub fn bits(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds } else { 0.0 }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver(TcpListener);

impl Receiver {
    /// Listens at an address of the calling thread's network namespace.
    pub fn listen(addr: IpAddr) -> io::Result<Self> {
        TcpListener::bind((addr, 0)).map(Receiver)
    }

    /// Where.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Takes one stream to its end; what arrives in the first `warm_up` does not count.
    pub fn receive(&self, warm_up: Duration) -> io::Result<TcpRate> {
        let (mut stream, _) = accept(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut buffer = vec![0; CHUNK];
        let mut rate = TcpRate::default();
        let start = Instant::now();
        let mut from = None;
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            match from {
                None if start.elapsed() >= warm_up => from = Some(Instant::now()),
                None => {}
                Some(t) => {
                    rate.bytes += n as u64;
                    rate.seconds = t.elapsed().as_secs_f64();
                }
            }
        }
        Ok(rate)
    }
}

fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok((stream, addr)) => {
                stream.set_nonblocking(false)?;
                return Ok((stream, addr));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) => return Err(e),
        }
    }
}

/// Sends to `to` as fast as it goes for `time`.
pub fn send(to: SocketAddr, time: Duration) -> io::Result<u64> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    let _ = set_tcp_congestion(&socket, CONGESTION);
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(PATIENCE))?;
    let buffer = vec![0x55; CHUNK];
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        sent += stream.write(&buffer)? as u64;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_over_loopback() {
        let receiver = Receiver::listen([127, 0, 0, 1].into()).unwrap();
        let to = receiver.addr().unwrap();
        let rate = std::thread::scope(|s| {
            s.spawn(move || send(to, Duration::from_millis(50)).unwrap());
            receiver.receive(Duration::ZERO).unwrap()
        });
        assert!(rate.bytes > 0 && rate.bits() > 0.0, "{rate:?}");
        assert_eq!(TcpRate::default().bits(), 0.0);
    }
}
