//! The results by which metrics count: closed sets, each with its words.

/// The closed set of results by which a metric counts.
pub(crate) trait MetricResult: Copy + 'static {
    const ALL: &'static [Self];

    /// Returns the value of the label.
    fn as_str(self) -> &'static str;
}

macro_rules! results {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$about])* $variant,)+ }

        impl MetricResult for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

results! {
    /// What one tier said about a lookup, or why it said nothing.
    LookupResult {
        /// It has a value.
        Hit = "hit",
        /// It knows that there is no such thing.
        Negative = "negative",
        /// It has no entry.
        Miss = "miss",
        /// Its entry is too old, or a change has made it outdated.
        Stale = "stale",
        /// Its entry was left by a key that is no longer in the ring.
        Retired = "retired",
        /// Its entry is not sealed by this key ring for this key.
        Refused = "refused",
        /// It was not asked, because it failed several times in a row.
        Open = "open",
        /// It was not asked, because the answer would have come too late.
        Shed = "shed",
        /// It failed, or did not answer in time.
        Unavailable = "unavailable",
    }
}

results! {
    /// What an entry in memory holds.
    EntryContent {
        Value = "value",
        /// That there is no such thing.
        Negative = "negative",
    }
}

results! {
    /// The store that a round trip goes to.
    Store {
        Redis = "redis",
        Postgres = "postgres",
    }
}

results! {
    PollResult {
        Succeeded = "ok",
        Failed = "failed",
    }
}

results! {
    /// What becomes of a frame of the relay.
    FrameResult {
        Applied = "applied",
        /// It does not follow the last one, so the replica polled Postgres itself.
        Gap = "gap",
        /// A leader that was replaced sent it.
        Superseded = "superseded",
        /// A key that is no longer in the ring sealed it.
        Retired = "retired",
        /// It is not sealed by this key ring for this installation, or cannot be read.
        Refused = "refused",
    }
}

results! {
    /// What became of one change of the canary.
    CanaryRound {
        /// The replica obeyed it in time.
        Seen = "seen",
        NotSeen = "unseen",
        /// Postgres did not accept it.
        NotMade = "unavailable",
    }
}

results! {
    /// What becomes of a note that a token was used.
    LastUseResult {
        Written = "written",
        /// The row was written within the last minute.
        Skipped = "skipped",
        /// The queue was full, or the statement failed.
        Dropped = "dropped",
    }
}

results! {
    /// What becomes of files that have changed.
    ReloadResult {
        Loaded = "ok",
        /// They have an error, so the earlier ones stay in use.
        Refused = "refused",
    }
}

results! {
    /// A listener that can have TLS.
    TlsListener {
        Grpc = "grpc",
        Http = "http",
    }
}

results! {
    /// A certificate that patgate shows to others, by the setting that leads to its file.
    OwnCertificate {
        Grpc = "grpc.tls.certificate_file",
        Http = "http.tls.certificate_file",
        Redis = "redis.tls.certificate_file",
        Postgres = "postgres.url",
        Feed = "feed.url",
    }
}

results! {
    /// How a TLS handshake ended.
    HandshakeResult {
        Done = "done",
        Failed = "failed",
        TimedOut = "timed_out",
    }
}

results! {
    /// What becomes of a record of the decision log.
    RecordResult {
        Written = "written",
        /// The output did not accept it.
        Failed = "failed",
        /// The queue was full.
        Dropped = "dropped",
        /// It repeats a logged denial, and was only counted.
        Repeated = "repeated",
        /// It would have exceeded the rate, and was only counted.
        LeftOut = "left_out",
    }
}

results! {
    /// What becomes of a span.
    SpanResult {
        /// The receiver accepted it.
        Exported = "exported",
        /// The receiver did not accept it, or did not answer.
        Failed = "failed",
        /// The queue was full.
        Dropped = "dropped",
    }
}

results! {
    /// What becomes of a line of patgate's own log.
    LineResult {
        Written = "written",
        /// The queue was full.
        Dropped = "dropped",
        /// Standard error did not accept it.
        Failed = "failed",
    }
}

results! {
    /// Why self-service refuses a request before any work is done for it.
    WebRefusal {
        /// The client has used its rate.
        Rate = "rate",
        /// Too many requests are answered at the same time.
        Busy = "busy",
        /// It names another host.
        Host = "host",
        /// Another site has sent it.
        Origin = "origin",
    }
}

results! {
    /// How a user signs in to self-service.
    SignInMethod {
        Password = "password",
        Provider = "provider",
    }
}

results! {
    /// What becomes of an attempt to sign in to self-service.
    SignInResult {
        Begun = "ok",
        /// Address and password do not belong together, or the subject is no user's.
        Failed = "failed",
        /// The account, or the login of the process, has had too many lately.
        TooMany = "too_many",
        /// The database did not answer, for example.
        Unavailable = "unavailable",
    }
}

results! {
    /// What `patgate sync` did to a file or an object.
    RouteChange {
        /// The file of a folder.
        Written = "written",
        Created = "created",
        /// The backend has changed.
        Changed = "changed",
        /// Another program had changed or deleted it.
        Restored = "restored",
        Deleted = "deleted",
    }
}

results! {
    /// What keeps `patgate sync` from bringing the routes in step.
    RoutePart {
        Postgres = "postgres",
        Folder = "folder",
        Kubernetes = "kubernetes",
        /// No backend is left, so nothing is removed.
        NothingLeft = "nothing_left",
    }
}
