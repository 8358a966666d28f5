//! How much one client, and all clients together, may ask for.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    clock::{self, Tick},
    telemetry::{SelfServiceMetrics, WebRefusal},
};

/// Requests that are answered at the same time.
const AT_ONCE: usize = 64;
/// Requests with a password at the same time, the waiting ones included: each takes 19 MiB and a few
/// tens of milliseconds of a processor, and few are computed at once.
const PASSWORDS_AT_ONCE: usize = 16;
/// Sign-ins that wait for the provider at the same time. They have places of their own, so that local
/// accounts work while the provider is slow.
const SIGN_INS_AT_ONCE: usize = 16;
/// Addresses that are remembered. With more, a new one is limited with all others only.
const ADDRESSES: usize = 65_536;
/// What a client that was silent may ask for at once, in seconds of its rate, and in attempts.
const SAVED: Duration = Duration::from_secs(5);
const ATTEMPTS_SAVED: u32 = 10;

/// The limits of a site.
#[derive(Debug)]
pub(super) struct Limits {
    requests: Rate,
    passwords: Rate,
    at_once: Arc<Semaphore>,
    passwords_at_once: Arc<Semaphore>,
    sign_ins_at_once: Arc<Semaphore>,
    metrics: SelfServiceMetrics,
}

/// There are too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Of this client; it may try again after this time.
    Client(Duration),
    /// Of all clients together.
    Busy,
}

impl Limits {
    pub(super) fn new(
        requests_per_second: u32,
        sign_ins_per_minute: u32,
        metrics: SelfServiceMetrics,
    ) -> Self {
        let minute = Duration::from_secs(60) / sign_ins_per_minute.max(1);
        Self {
            requests: Rate::new(Duration::from_secs(1) / requests_per_second.max(1), SAVED),
            passwords: Rate::new(minute, minute * ATTEMPTS_SAVED),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            passwords_at_once: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            sign_ins_at_once: Arc::new(Semaphore::new(SIGN_INS_AT_ONCE)),
            metrics,
        }
    }

    /// Counts a request of a client.
    pub(super) fn request(&self, client: IpAddr) -> Result<(), Refusal> {
        self.counted(self.requests.take(client, clock::now()))
    }

    /// Admits a request that has arrived whole. It counts until the permit is dropped.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.counted(place_of(&self.at_once))
    }

    /// Admits an attempt to prove or set a password.
    pub(super) fn password(&self, client: IpAddr) -> Result<OwnedSemaphorePermit, Refusal> {
        self.admit(&self.passwords, &self.passwords_at_once, client)
    }

    fn admit(
        &self,
        rate: &Rate,
        at_once: &Arc<Semaphore>,
        client: IpAddr,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        self.counted(rate.take(client, clock::now()).and_then(|()| place_of(at_once)))
    }

    fn counted<T>(&self, admitted: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &admitted {
            self.metrics.refused(match refusal {
                Refusal::Client(_) => WebRefusal::Rate,
                Refusal::Busy => WebRefusal::Busy,
            });
        }
        admitted
    }

    /// Admits a part of a sign-in by the provider, which shares the rate of passwords.
    pub(super) fn sign_in(&self, client: IpAddr) -> Result<OwnedSemaphorePermit, Refusal> {
        self.admit(&self.passwords, &self.sign_ins_at_once, client)
    }
}

fn place_of(at_once: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(at_once).try_acquire_owned().map_err(|_| Refusal::Busy)
}

/// Equal shares for all addresses.
#[derive(Debug)]
struct Rate {
    interval: Duration,
    saved: Duration,
    /// The tick of the next request at an even rate.
    next: Mutex<HashMap<IpAddr, Tick>>,
}

impl Rate {
    fn new(interval: Duration, saved: Duration) -> Self {
        Self { interval, saved, next: Mutex::default() }
    }

    fn take(&self, client: IpAddr, now: Tick) -> Result<(), Refusal> {
        let client = network(client);
        let mut all = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ADDRESSES && !all.contains_key(&client) {
            all.retain(|_, next| *next > now);
            if all.len() >= ADDRESSES {
                return Ok(());
            }
        }
        let next = all.entry(client).or_insert(now);
        let after = (*next).max(now).after(self.interval);
        let latest = now.after(self.saved.max(self.interval));
        if after > latest {
            return Err(Refusal::Client(after.since(latest)));
        }
        *next = after;
        Ok(())
    }
}

/// A client has a whole /64 of IPv6.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        IpAddr::V4(address) => IpAddr::V4(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_network_has_a_rate_of_its_own() {
        let second = Duration::from_secs(1);
        let rate = Rate::new(second, second * 3);
        let now = clock::now();
        let (one, other) = (ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        for _ in 0..3 {
            rate.take(one, now).unwrap();
        }
        let refused = rate.take(ip("2001:db8::ffff:2"), now).unwrap_err();
        assert_eq!(refused, Refusal::Client(second));
        rate.take(other, now).unwrap();
        // Refused requests do not delay the next one that is admitted.
        rate.take(one, now.after(second)).unwrap();
        assert!(rate.take(one, now.after(second)).is_err());
        // The same client, with its address in another form.
        for _ in 0..3 {
            rate.take(ip("192.0.2.1"), now).unwrap();
        }
        assert!(rate.take(ip("::ffff:192.0.2.1"), now).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let second = Duration::from_secs(1);
        let rate = Rate::new(second, second);
        let now = clock::now();
        let address = |number: u32| IpAddr::V4(number.into());
        for number in 0..ADDRESSES as u32 + 10 {
            rate.take(address(number), now).unwrap();
        }
        assert_eq!(rate.next.lock().unwrap().len(), ADDRESSES);
        assert!(rate.take(address(0), now).is_err());
        // Later, those who have been silent are forgotten.
        rate.take(address(u32::MAX), now.after(second * 2)).unwrap();
        assert_eq!(rate.next.lock().unwrap().len(), 1);
    }

    #[test]
    fn all_together_have_places() {
        let limits = Limits::new(1000, 1000, SelfServiceMetrics::default());
        let taken: Vec<_> =
            (0..PASSWORDS_AT_ONCE as u32).map(|n| limits.password(IpAddr::V4(n.into()))).collect();
        assert!(taken.iter().all(Result::is_ok));
        assert_eq!(limits.password(ip("192.0.2.1")).unwrap_err(), Refusal::Busy);
        drop(taken);
        assert!(limits.password(ip("192.0.2.1")).is_ok());
    }
}
