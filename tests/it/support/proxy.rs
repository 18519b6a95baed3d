//! A proxy between the sidecar and a server, which breaks the connection where a test wants it broken.
//!
//! It knows the protocol's framing (manual, section 55.7) and no more: messages go through whole and one by one, so that a fault can come before, inside or after any one of them.

use bytes::BytesMut;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::sleep,
};

/// Which way a message goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    ToServer,
    ToClient,
}

/// How a connection ends: by a reset, or in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Reset,
    Close,
}

/// What happens to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// So many bytes of it still pass, then the connection ends on both sides.
    Cut { after: usize, ending: Ending },
    /// Neither it nor what follows it passes; both sides stay connected.
    Hold,
    /// It passes, and what follows it does not.
    HoldNext,
    /// It passes, and no answer comes back.
    HoldAnswer,
    /// It is lost, and the rest passes.
    Swallow,
    /// These bytes pass instead of it.
    Replace(Vec<u8>),
    /// These bytes pass before it.
    Insert(Vec<u8>),
}

/// Length and code, which stands where a version would (manual, section 55.7).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// All of a message passes before the cut.
pub const WHOLE: usize = usize::MAX;

/// What goes through: its tag (0 for a client's first message, which has none), and its body.
#[derive(Debug)]
pub struct Message<'a> {
    pub way: Way,
    pub tag: u8,
    pub body: &'a [u8],
}

/// Which messages are meant.
pub type Which = fn(&Message<'_>) -> bool;

impl Message<'_> {
    /// Whether it is a message of this kind that has these bytes in it.
    pub fn is(&self, way: Way, tag: u8, part: &[u8]) -> bool {
        let holds = part.is_empty() || self.body.windows(part.len()).any(|bytes| bytes == part);
        self.way == way && self.tag == tag && holds
    }

    /// Whether it carries a message of pgoutput of this kind.
    pub fn is_pgoutput(&self, kind: u8) -> bool {
        // `w`, three numbers, then the message.
        let is_data = self.is(Way::ToClient, b'd', b"") && self.body.first() == Some(&b'w');
        is_data && self.body.get(25) == Some(&kind)
    }
}

type Matches = Box<dyn Fn(&Message<'_>) -> bool + Send>;

struct Rule {
    matches: Matches,
    /// How many that match are let through first.
    skip: usize,
    fault: Fault,
}

/// How everything goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// Clients are accepted, and then nobody answers.
    pub is_black_hole: bool,
    /// Clients are accepted and closed at once.
    pub is_refusing: bool,
    /// Each piece comes so much later.
    pub latency: Duration,
    /// 0: no limit.
    pub bytes_per_second: usize,
}

#[derive(Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    weather: Mutex<Weather>,
    accepted: AtomicUsize,
    /// All that clients have sent.
    sent: Mutex<Vec<u8>>,
}

/// What all connections are told.
#[derive(Clone, Copy, Default)]
struct Order {
    /// Connections up to this number.
    upto: usize,
    ending: Option<Ending>,
    is_stalled: bool,
}

/// A proxy on a port of its own.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    orders: watch::Sender<Order>,
    fired: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Between whoever connects to its port and the server at `127.0.0.1:server`.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let (orders, ordered) = watch::channel(Order::default());
        let (fires, fired) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&shared), ordered, fires));
        Self { port, shared, orders, fired, _tasks: tasks }
    }

    /// Does `fault` to the message after `skip` that match; once.
    pub fn arm(
        &mut self,
        fault: Fault,
        skip: usize,
        matches: impl Fn(&Message<'_>) -> bool + Send + 'static,
    ) {
        self.fired.mark_unchanged();
        let rule = Rule { matches: Box::new(matches), skip, fault };
        *self.shared.rule.lock().unwrap() = Some(rule);
    }

    /// Waits until the fault has happened.
    pub async fn fired(&mut self, what: &str) {
        let fired = tokio::time::timeout(super::WAIT_MAX, self.fired.changed()).await;
        assert!(fired.is_ok(), "the message must come: {what}");
    }

    /// Ends every connection.
    pub fn cut_all(&self, ending: Ending) {
        let upto = self.accepted();
        self.orders.send_replace(Order { upto, ending: Some(ending), is_stalled: false });
    }

    /// Nothing passes on the connections of now any more, and neither side is told.
    pub fn stall_all(&self) {
        let upto = self.accepted();
        self.orders.send_replace(Order { upto, ending: None, is_stalled: true });
    }

    pub fn set_weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// Whether a client has sent these bytes.
    pub fn was_sent(&self, bytes: &[u8]) -> bool {
        self.has_sent(bytes.len(), |sent| sent == bytes)
    }

    /// Whether a client has sent so many bytes that are meant.
    pub fn has_sent(&self, length: usize, is_meant: impl Fn(&[u8]) -> bool) -> bool {
        self.shared.sent.lock().unwrap().windows(length).any(is_meant)
    }

    /// How many clients have connected.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    server: u16,
    shared: Arc<Shared>,
    orders: watch::Receiver<Order>,
    fires: watch::Sender<usize>,
) {
    let mut links = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let weather = *shared.weather.lock().unwrap();
        if weather.is_refusing {
            continue;
        }
        let (shared, orders, fires) = (Arc::clone(&shared), orders.clone(), fires.clone());
        links.spawn(async move {
            if weather.is_black_hole {
                let _client = client;
                return ended(number, orders).await;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
            drop(client.set_nodelay(true).and_then(|()| server.set_nodelay(true)));
            connect(number, client, server, &shared, orders, fires).await;
        });
        while links.try_join_next().is_some() {}
    }
}

async fn ended(number: usize, mut orders: watch::Receiver<Order>) {
    drop(orders.wait_for(|order| order.upto >= number && order.ending.is_some()).await);
}

/// What the two directions of a connection know of each other.
struct Link {
    number: usize,
    ending: watch::Sender<Option<Ending>>,
    held: watch::Sender<[bool; 2]>,
    fires: watch::Sender<usize>,
}

async fn connect(
    number: usize,
    mut client: TcpStream,
    server: TcpStream,
    shared: &Shared,
    mut orders: watch::Receiver<Order>,
    fires: watch::Sender<usize>,
) {
    let link =
        Link { number, ending: watch::channel(None).0, held: watch::channel([false; 2]).0, fires };
    // Who asks for TLS is told that there is none, so that what goes through can be read.
    let mut first = [0; SSL_REQUEST.len()];
    if client.peek(&mut first).await.is_ok() && first == SSL_REQUEST {
        let answered = async {
            client.read_exact(&mut first).await?;
            client.write_all(b"N").await
        };
        drop(answered.await);
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut ending = link.ending.subscribe();
    let mut endings = orders.clone();
    let told = async {
        let is_ours = |order: &Order| order.upto >= link.number && order.ending.is_some();
        let order = endings.wait_for(is_ours).await.map(|order| order.ending);
        order.ok().flatten().unwrap_or(Ending::Close)
    };
    let stalls = async {
        let is_ours = |order: &Order| order.upto >= link.number && order.is_stalled;
        drop(orders.wait_for(is_ours).await.map(drop));
        link.held.send_replace([true; 2]);
        std::future::pending::<()>().await;
    };
    let mut sockets = [(from_client, to_server), (from_server, to_client)];
    let [up, down] = &mut sockets;
    let how = tokio::select! {
        how = told => how,
        how = ending.wait_for(Option::is_some) => how.ok().and_then(|how| *how).unwrap_or(Ending::Close),
        () = pump(Way::ToServer, up, &link, shared) => Ending::Close,
        () = pump(Way::ToClient, down, &link, shared) => Ending::Close,
        () = stalls => Ending::Close,
    };
    for (from, _) in &sockets {
        if how == Ending::Reset {
            from.as_ref().set_zero_linger().unwrap();
        }
    }
}

/// Moves messages one way until either side has ended.
async fn pump(
    way: Way,
    (from, to): &mut (OwnedReadHalf, OwnedWriteHalf),
    link: &Link,
    shared: &Shared,
) {
    let mut buffer = BytesMut::new();
    let mut held = link.held.subscribe();
    let mut is_first = way == Way::ToServer;
    loop {
        while let Some(length) = whole(&buffer, is_first) {
            drop(held.wait_for(|held| !held[side(way)]).await);
            let bytes = buffer.split_to(length);
            let header = if is_first { 4 } else { 5 };
            let tag = if is_first { 0 } else { bytes[0] };
            is_first = false;
            let message = Message { way, tag, body: &bytes[header..] };
            if way == Way::ToServer {
                shared.sent.lock().unwrap().extend_from_slice(&bytes);
            }
            let weather = *shared.weather.lock().unwrap();
            let fault = take_fault(shared, &message);
            let passed = pass(way, &bytes, fault, weather, to, link).await;
            if passed.is_err() {
                return;
            }
        }
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn side(way: Way) -> usize {
    usize::from(way == Way::ToClient)
}

fn take_fault(shared: &Shared, message: &Message<'_>) -> Option<Fault> {
    let mut armed = shared.rule.lock().unwrap();
    let rule = armed.as_mut().filter(|rule| (rule.matches)(message))?;
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    armed.take().map(|rule| rule.fault)
}

async fn pass(
    way: Way,
    bytes: &[u8],
    fault: Option<Fault>,
    weather: Weather,
    to: &mut OwnedWriteHalf,
    link: &Link,
) -> std::io::Result<()> {
    let hold = |way: Way| {
        link.held.send_modify(|held| held[side(way)] = true);
    };
    let back = if way == Way::ToServer { Way::ToClient } else { Way::ToServer };
    let fire = || link.fires.send_modify(|fired| *fired += 1);
    let Some(fault) = fault else { return write(to, bytes, weather).await };
    match fault {
        Fault::Cut { after, ending } => {
            to.write_all(&bytes[..after.min(bytes.len())]).await?;
            link.ending.send_replace(Some(ending));
            fire();
            // The connection ends while this waits.
            std::future::pending::<()>().await;
        }
        Fault::Hold => {
            hold(way);
            fire();
            let mut held = link.held.subscribe();
            drop(held.wait_for(|held| !held[side(way)]).await);
        }
        Fault::HoldNext => {
            to.write_all(bytes).await?;
            hold(way);
            fire();
        }
        Fault::HoldAnswer => {
            hold(back);
            to.write_all(bytes).await?;
            fire();
        }
        Fault::Swallow => fire(),
        Fault::Replace(other) => {
            to.write_all(&other).await?;
            fire();
        }
        Fault::Insert(other) => {
            to.write_all(&other).await?;
            fire();
            to.write_all(bytes).await?;
        }
    }
    Ok(())
}

async fn write(to: &mut OwnedWriteHalf, bytes: &[u8], weather: Weather) -> std::io::Result<()> {
    if !weather.latency.is_zero() {
        sleep(weather.latency).await;
    }
    if weather.bytes_per_second == 0 {
        return to.write_all(bytes).await;
    }
    for piece in bytes.chunks(weather.bytes_per_second.div_ceil(20)) {
        sleep(Duration::from_millis(50)).await;
        to.write_all(piece).await?;
    }
    Ok(())
}

/// The length of the message that begins `bytes`, if it is in whole.
fn whole(bytes: &[u8], is_first: bool) -> Option<usize> {
    let tag = usize::from(!is_first);
    let length = bytes.get(tag..tag + 4)?;
    let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + tag;
    (bytes.len() >= length).then_some(length)
}
