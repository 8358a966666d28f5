//! What was read of a login, and how Postgres took it. It has no I/O.
//!
//! A password is replaced in two places, in Postgres and in a file, and never at the same moment.
//! So what worked before is kept until a login with what was read later has succeeded.

use std::time::Duration;

use super::{ConnectError, Servers};
use crate::clock::Tick;

/// For this long after a refused login, patgate neither tries it again nor reads the files again:
/// each refusal costs Postgres a process, and may lock the login.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_millis(500);

/// The login of one address.
pub(super) struct Login {
    current: Servers,
    /// Whether a login with it has succeeded.
    proven: bool,
    /// The last one that was proven, until the current one is.
    previous: Option<Servers>,
    /// When Postgres last refused that one, too.
    previous_refused: Option<Tick>,
    /// When Postgres last refused the current one, and how.
    refused: Option<(Tick, ConnectError)>,
    /// Whether the files have an error, so that what was read before is in use.
    files_refused: bool,
}

impl Login {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            current: servers,
            proven: false,
            previous: None,
            previous_refused: None,
            refused: None,
            files_refused: false,
        }
    }

    pub(super) fn current(&self) -> &Servers {
        &self.current
    }

    /// Returns what worked before the current one, unless Postgres has just refused it.
    pub(super) fn previous(&self, now: Tick) -> Option<&Servers> {
        let lately = self.previous_refused.is_some_and(|at| now.since(at) < AFTER_REFUSAL);
        self.previous.as_ref().filter(|_| !lately)
    }

    /// Notes that Postgres has refused a login with what worked before.
    pub(super) fn refused_previous(&mut self, servers: &Servers, at: Tick) {
        if self.previous.as_ref() == Some(servers) {
            self.previous_refused = Some(at);
        }
    }

    /// Whether the files have an error, or Postgres refuses what they hold.
    pub(super) fn is_refused(&self) -> bool {
        self.files_refused || self.refused.is_some()
    }

    pub(super) fn is_refused_by_postgres(&self) -> bool {
        self.refused.is_some()
    }

    /// Makes this the current login. Returns whether it differs from the one before.
    pub(super) fn take_up(&mut self, servers: Servers) -> bool {
        self.files_refused = false;
        if self.current == servers {
            return false;
        }
        let earlier = std::mem::replace(&mut self.current, servers);
        self.refused = None;
        if self.proven {
            self.previous = Some(earlier);
            self.previous_refused = None;
        }
        self.proven = self.previous.as_ref() == Some(&self.current);
        if self.proven {
            self.previous = None;
        }
        true
    }

    /// Whether these servers lead elsewhere, or as another user, than what worked last. A login that
    /// was superseded while it was tried counts as well: its connection could still be used.
    pub(super) fn replaces_another(&self, servers: &Servers) -> bool {
        let worked = if self.proven { Some(&self.current) } else { self.previous.as_ref() };
        worked.is_some_and(|worked| !worked.lead_alike(servers))
    }

    /// Notes that the files have an error.
    pub(super) fn refuse_files(&mut self) {
        self.files_refused = true;
    }

    /// Notes that a login with these servers has succeeded. Returns the login that is given up for
    /// it, if it is the first success of the current one.
    pub(super) fn accepted(&mut self, servers: &Servers) -> Option<Servers> {
        if self.current != *servers {
            return None;
        }
        self.refused = None;
        self.proven = true;
        self.previous.take()
    }

    /// Notes that Postgres has refused a login with these servers. Returns whether that is news.
    pub(super) fn refused(&mut self, servers: &Servers, at: Tick, error: ConnectError) -> bool {
        self.current == *servers && self.refused.replace((at, error)).is_none()
    }

    /// Returns why these servers are not asked again yet.
    pub(super) fn refused_lately(&self, servers: &Servers, now: Tick) -> Option<ConnectError> {
        let (at, error) = self.refused.as_ref()?;
        let lately = self.current == *servers && now.since(*at) < AFTER_REFUSAL;
        lately.then(|| error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(password: &str) -> Servers {
        let url = format!("postgres://u:{password}@h/db");
        Servers::new(vec![url.parse().unwrap()], url.into(), None)
    }

    const NOW: Tick = Tick::from_micros(0);

    fn refusal() -> ConnectError {
        ConnectError {
            key: "postgres.url",
            server: String::new(),
            reason: "no".to_owned(),
            login_refused: true,
        }
    }

    #[test]
    fn what_worked_is_kept_until_its_successor_has_worked() {
        let [a, b, c] = ["a", "b", "c"].map(servers);
        let mut login = Login::new(a.clone());
        assert!(!login.take_up(a.clone()), "the same");
        assert!(login.take_up(b.clone()) && login.previous(NOW).is_none(), "a was never proven");
        assert!(login.accepted(&a).is_none() && login.accepted(&b).is_none());
        assert!(login.take_up(c.clone()) && login.previous(NOW) == Some(&b));
        // A third one before the second was proven: the first remains what worked.
        assert!(login.take_up(a.clone()) && login.previous(NOW) == Some(&b));
        assert!(login.accepted(&c).is_none(), "a late success of one that was replaced");
        assert!(login.previous(NOW) == Some(&b));
        // Back to what worked.
        assert!(login.take_up(b.clone()) && login.previous(NOW).is_none());
        assert!(login.take_up(c.clone()) && login.accepted(&c) == Some(b));
        assert!(login.accepted(&c).is_none() && login.current() == &c);
    }

    #[test]
    fn a_login_as_another_user_replaces_what_worked_even_if_it_is_superseded() {
        let user = |name: &str| {
            let url = format!("postgres://{name}@h/db");
            Servers::new(vec![url.parse().unwrap()], url.into(), None)
        };
        let [a, b, c] = ["a", "b", "c"].map(user);
        let mut login = Login::new(a.clone());
        assert!(!login.replaces_another(&a), "nothing has worked: the start checks it");
        login.accepted(&a);
        assert!(!login.replaces_another(&a));
        for next in [&b, &c] {
            login.take_up(next.clone());
            assert!(login.replaces_another(&b) && login.replaces_another(&c));
        }
        login.take_up(a.clone());
        assert!(login.replaces_another(&b), "a connection of it may still be under way");
    }

    #[test]
    fn what_worked_is_not_asked_again_at_once_after_it_was_refused_too() {
        let [a, b] = ["a", "b"].map(servers);
        let mut login = Login::new(a.clone());
        assert!(login.accepted(&a).is_none() && login.take_up(b.clone()));
        login.refused_previous(&b, NOW);
        assert!(login.previous(NOW) == Some(&a), "another one was refused");
        login.refused_previous(&a, NOW);
        assert!(login.previous(NOW).is_none());
        assert!(login.previous(NOW.after(AFTER_REFUSAL)) == Some(&a));
    }

    #[test]
    fn a_refusal_is_news_once_and_ends_with_a_success_or_with_other_content() {
        let [a, b] = ["a", "b"].map(servers);
        let now = NOW;
        let mut login = Login::new(a.clone());
        assert!(!login.refused(&b, now, refusal()) && !login.is_refused(), "not the current one");
        assert!(login.refused(&a, now, refusal()) && login.is_refused());
        assert!(!login.refused(&a, now, refusal()));
        assert!(login.refused_lately(&a, now).is_some() && login.refused_lately(&b, now).is_none());
        assert!(login.refused_lately(&a, now.after(AFTER_REFUSAL)).is_none());
        login.accepted(&a);
        assert!(!login.is_refused() && login.refused(&a, now, refusal()));
        login.take_up(b.clone());
        assert!(!login.is_refused());
        login.refuse_files();
        assert!(login.is_refused());
        login.accepted(&b);
        assert!(login.is_refused(), "the files still have an error");
        login.take_up(b);
        assert!(!login.is_refused());
    }
}
