//! The thread: sessions with avahi-daemon come and go, the picture and what the owner is told stay here.

use super::obstacle;
use super::picture::Picture;
use super::session::{Heard, POLL, Session};
use crate::multicast::{Multicast, OWN_NAME_WAIT_MAX, VERIFY_WAIT_MAX};
use crate::{Announcement, DiscoveryError, Outlet, Peer};
use delugefs_core::ids::NodeId;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How often an avahi-daemon that is not there is tried.
const RETRY: Duration = Duration::from_secs(2);

/// How often everything is asked for anew: Avahi does not tell that an address has changed.
const RENEW_EVERY: Duration = Duration::from_secs(60);

enum Order {
    Renew,
    Stop,
}

#[derive(Debug)]
pub(crate) struct Avahi {
    orders: Sender<Order>,
    ended: Receiver<()>,
}

impl Avahi {
    pub(crate) fn start(
        announcement: Option<&Announcement>,
        outlet: Outlet,
    ) -> Result<Self, DiscoveryError> {
        let announced = announcement.filter(|own| !own.listen.ip().is_loopback());
        if announced.is_some_and(|own| own.volume_name.contains('\0')) {
            let text = "Avahi takes no volume name with a zero byte";
            return Err(DiscoveryError::Mdns(text.into()));
        }
        let (orders, order) = channel();
        let (end, ended) = channel::<()>();
        let worker = Worker::new(announced.cloned(), outlet);
        let thread = thread::Builder::new().name("avahi".into());
        thread.spawn(move || {
            worker.run(&order);
            drop(end);
        })?;
        Ok(Self { orders, ended })
    }
}

impl Multicast for Avahi {
    fn verify(&self, _: NodeId) {
        let _ = self.orders.send(Order::Renew);
    }

    fn stop(self: Box<Self>, wait: Duration) {
        let _ = self.orders.send(Order::Stop);
        let _ = self.ended.recv_timeout(wait);
    }
}

struct Worker {
    own: Option<Announcement>,
    outlet: Outlet,
    picture: Picture,
    session: Option<Session>,
    open_at: Instant,
    renew_at: Instant,
    /// The end of the renewal under way.
    settle_at: Option<Instant>,
    /// When the owner is told that something does not work, unless it does by then.
    warn_at: Option<Instant>,
    warned: bool,
    /// Why there is no session, or why the service is not published.
    trouble: Option<String>,
}

impl Worker {
    fn new(own: Option<Announcement>, outlet: Outlet) -> Self {
        let now = Instant::now();
        Self {
            own,
            outlet,
            picture: Picture::default(),
            session: None,
            open_at: now,
            renew_at: now + RENEW_EVERY,
            settle_at: None,
            warn_at: Some(now + OWN_NAME_WAIT_MAX),
            warned: false,
            trouble: None,
        }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            match self.next_order(orders) {
                Ok(Some(Order::Renew)) => self.renew_at = Instant::now(),
                Ok(None) => {}
                Ok(Some(Order::Stop)) | Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            let heard = self.listen();
            let go_on = heard.into_iter().all(|heard| self.handle(heard));
            if !go_on || !self.timers(Instant::now()) {
                return;
            }
        }
    }

    /// Where there is a session it is what the thread waits for, else the orders are.
    fn next_order(&self, orders: &Receiver<Order>) -> Result<Option<Order>, TryRecvError> {
        if self.session.is_some() {
            return orders.try_recv().map(Some);
        }
        match orders.recv_timeout(POLL) {
            Ok(order) => Ok(Some(order)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(TryRecvError::Disconnected),
        }
    }

    fn listen(&mut self) -> Vec<Heard> {
        if let Some(session) = &self.session {
            return session.poll();
        }
        self.open(Instant::now());
        Vec::new()
    }

    fn open(&mut self, now: Instant) {
        if now < self.open_at {
            return;
        }
        self.open_at = now + RETRY;
        match Session::open(self.own.as_ref()) {
            Ok(session) => {
                self.session = Some(session);
                self.trouble = None;
                self.begin_renewal(now);
                if self.own.is_none() {
                    self.works();
                }
            }
            Err(error) => self.trouble = Some(error),
        }
    }

    fn begin_renewal(&mut self, now: Instant) {
        self.picture.renew();
        self.settle_at = Some(now + VERIFY_WAIT_MAX);
        self.renew_at = now + RENEW_EVERY;
    }

    fn works(&mut self) {
        self.warn_at = None;
        if std::mem::take(&mut self.warned) {
            tracing::info!("Avahi works now: other hosts can be found");
        }
    }

    /// Returns false when nobody listens any more.
    fn handle(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Resolved(instance, peer) => return self.resolved(instance, peer),
            Heard::Removed => self.renew_at = Instant::now(),
            Heard::Unpublished(reason) => self.trouble = Some(reason),
            Heard::Ended(reason) => self.ended(reason, Instant::now()),
        }
        true
    }

    fn resolved(&mut self, instance: String, peer: Peer) -> bool {
        let own = self.own.as_ref().is_some_and(|own| own.node == peer.node);
        if own {
            self.works();
        }
        let sighting = self.picture.seen(instance, peer);
        sighting.is_none_or(|sighting| self.outlet.put(sighting))
    }

    fn ended(&mut self, reason: String, now: Instant) {
        tracing::debug!(reason, "the session with avahi-daemon has ended");
        self.session = None;
        self.trouble = Some(reason);
        self.open_at = now + RETRY;
        self.warn_at.get_or_insert(now + OWN_NAME_WAIT_MAX);
        self.begin_renewal(now);
    }

    fn timers(&mut self, now: Instant) -> bool {
        if self.settle_at.is_some_and(|due| due <= now) {
            self.settle_at = None;
            let settled = self.picture.settle();
            if !settled
                .into_iter()
                .all(|sighting| self.outlet.put(sighting))
            {
                return false;
            }
        }
        if self.renew_at <= now && self.settle_at.is_none() {
            self.ask_again(now);
        }
        if self.warn_at.is_some_and(|due| due <= now) {
            self.warn_at = None;
            return self.warn();
        }
        true
    }

    fn ask_again(&mut self, now: Instant) {
        let asked = self.session.as_mut().map(Session::browse_again);
        match asked {
            Some(Err(error)) => self.ended(error, now),
            Some(Ok(())) | None => self.begin_renewal(now),
        }
    }

    fn warn(&mut self) -> bool {
        // Told again only after it has worked.
        if std::mem::replace(&mut self.warned, true) {
            return true;
        }
        let reason = self.trouble.as_deref();
        self.outlet.warn(match &self.session {
            None => obstacle::no_session(reason.unwrap_or("no answer")),
            Some(_) => obstacle::own_name_missing(reason),
        })
    }
}
