//! Every setting, declared once: its name, value, rule, default and help. Option, variable and member of the file have the same name:
//! `--quota-wait`, `GATEWAY_QUOTA_WAIT` and `quota_wait`.

use std::time::Duration;

use tower_gemini::KeyLabel;
use tower_gemini::fleet::RedisStore;

use super::rules::{self, Acts, Chain, Form, Read, Resumes};
use super::sources::Values;
use crate::log::Format;
use crate::quota::{self, Mode, Secret};
use crate::upstream::Base;

/// A setting.
pub struct Declared {
    /// In the spelling of the file.
    pub name: &'static str,
    /// What stands for its value in the help. Empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    pub heading: &'static str,
    pub default: Option<&'static str>,
    /// It is never printed.
    pub secret: bool,
    /// A reload cannot change it.
    pub fixed: bool,
    /// Several values are joined by `;`.
    pub list: bool,
    pub check: fn(&str) -> Read<()>,
}

macro_rules! of_kind {
    (maybe, $type:ty) => { Option<$type> };
    (or, $type:ty) => { $type };
}

macro_rules! read {
    (maybe, $values:ident, $name:expr, $rule:expr) => {
        $values.get($name).map(|text| $rule(text)).transpose()
    };
    (or, $values:ident, $name:expr, $rule:expr) => {
        $rule($values.get($name).unwrap_or_default())
    };
}

macro_rules! default {
    () => {
        None
    };
    ($default:literal) => {
        Some($default)
    };
}

macro_rules! flag {
    ($wanted:ident) => { false };
    (secret secret $($rest:ident)*) => { true };
    (fixed fixed $($rest:ident)*) => { true };
    (list list $($rest:ident)*) => { true };
    ($wanted:ident $other:ident $($rest:ident)*) => { flag!($wanted $($rest)*) };
}

macro_rules! settings {
    ($($heading:literal: $($(#[doc = $help:literal])+ $name:ident: $type:ty = $rule:expr, $kind:ident($($default:literal)?), $value:literal $(, $flag:ident)*;)+)+) => {
        /// What the gateway was told, each with its default where it was not.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($($(#[doc = $help])+ pub $name: of_kind!($kind, $type),)+)+
            /// Where they are from.
            pub values: Values,
        }

        /// In the order of the help.
        pub static DECLARED: &[Declared] = &[$($(Declared {
            name: stringify!($name),
            value: $value,
            help: concat!($($help,)+),
            heading: $heading,
            default: default!($($default)?),
            secret: flag!(secret $($flag)*),
            fixed: flag!(fixed $($flag)*),
            list: flag!(list $($flag)*),
            check: |text| $rule(text).map(drop),
        },)+)+];

        impl Settings {
            /// The error is the first rule that a value breaks, after its place.
            pub(super) fn read(values: Values) -> Result<Self, String> {
                Ok(Self {
                    $($($name: read!($kind, values, stringify!($name), $rule)
                        .map_err(|rule| values.rule(stringify!($name), &rule))?,)+)+
                    values,
                })
            }
        }
    };
}

settings! {
    "Listening":
    /// where calls come in
    listen: String = rules::address, or("127.0.0.1:8080"), "ADDR", fixed;
    /// where /status, /metrics, /page and their data are answered; off: nowhere
    admin: Option<String> = rules::address_or_off, or("127.0.0.1:8081"), "ADDR|off", fixed;
    /// the certificate chain (PEM) of TLS for calls; needs --tls-key. Reread on SIGHUP
    tls_cert: String = rules::path, maybe(), "FILE", fixed;
    /// its private key (PEM)
    tls_key: String = rules::path, maybe(), "FILE", fixed;
    /// how long calls are still taken after SIGTERM, while /readyz says no
    drain_delay: Duration = rules::seconds_or_none::<3600>, or("0"), "SECONDS";
    /// how long calls under way may take after that
    grace: Duration = rules::seconds_or_none::<86_400>, or("30"), "SECONDS";

    "Upstream":
    /// whom to ask
    upstream: Base = rules::base, or("https://generativelanguage.googleapis.com"), "URL", fixed;
    /// ask a simulator of Gemini in this process instead
    simulate: bool = rules::switch, or("0"), "", fixed;
    /// who may call, by tokens of their own; the file also names the upstream's keys. Reread on SIGHUP
    clients: String = rules::path, maybe(), "FILE", fixed;

    "Quotas":
    /// the quota of each model; without it, it is learnt from 429s
    requests_per_minute: u64 = rules::quota, maybe(), "N";
    /// the same, in input tokens
    tokens_per_minute: u64 = rules::quota, maybe(), "N";
    /// the same, until midnight Pacific
    requests_per_day: u64 = rules::quota, maybe(), "N";
    /// quotas: on, observe (nobody waits for them, and those who would are counted) or off
    quota: Acts = rules::acts, or("on"), "MODE", fixed;
    /// the longest that a call waits for quota or for a delay that the upstream asks for; 0: not at all
    quota_wait: Duration = rules::seconds_or_none::<86_400>, or("15"), "SECONDS", fixed;
    /// keep the day's counts and the limits that 429s have taught here over a restart
    state: String = rules::path, maybe(), "FILE", fixed;
    /// keep these quotas together with other gateways, in Redis or Valkey: `redis://host`, with `user:password@` before and `:port` after the host where needed
    quota_store: RedisStore = quota::store, maybe(), "URL", secret, fixed;
    /// all calls are of the project that is called so
    quota_project: KeyLabel = quota::project, maybe(), "NAME", fixed;
    /// or: tell callers' keys apart, by a hash with this secret; the same for all gateways, best given as a variable
    quota_secret: Secret = quota::secret, maybe(), "TEXT", secret, fixed;
    /// without the store: strict (less and less; the default), share (a part for each), closed or local
    quota_outage: Mode = quota::mode, maybe(), "MODE", fixed;
    /// how many gateways there are, for share
    quota_members: u64 = rules::whole::<1, 100_000>, maybe(), "N", fixed;

    "Failures":
    /// in all, the first included
    attempts: u64 = rules::whole::<1, 100>, or("5"), "N";
    /// for all attempts and waits together
    deadline: Duration = rules::seconds::<86_400>, or("120"), "SECONDS";
    /// the same of calls of the flex tier
    flex_deadline: Duration = rules::seconds::<86_400>, or("1800"), "SECONDS";
    /// until the head of one attempt's answer; three quarters of the deadline where it is not given, and of --flex-deadline for the flex tier
    first_byte: Duration = rules::seconds::<86_400>, maybe(), "SECONDS";
    /// how long an answer may pause
    idle: Duration = rules::seconds::<86_400>, or("60"), "SECONDS";
    /// whether such an answer ends: on, observe (those that would are counted) or off
    idle_mode: Acts = rules::acts, or("on"), "MODE";
    /// the circuit breaker: on, observe (it tells what it would do) or off
    breaker: Acts = rules::acts, or("on"), "MODE";
    /// how long a circuit stays open at first
    breaker_open: Duration = rules::seconds::<3600>, or("2"), "SECONDS";
    /// the limit of calls in flight that timeouts bring about: on, observe or off
    governor: Acts = rules::acts, or("on"), "MODE";
    /// how often an answer that is empty, malformed or blocked for no reason is asked for again; each is billed
    empty_answers: u64 = rules::whole::<0, 2>, or("0"), "N";
    /// streams that break off: off, continue (behind the text so far) or restart (from the beginning, behind a comment); each is a further call
    resume_streams: Resumes = rules::resumes, or("off"), "MODE";
    /// errors on the OpenAI-compatible paths: google (as they come, in an array) or openai (as its SDKs read them)
    openai_errors: Form = rules::form, or("google"), "FORM";
    /// ask B, then C, where A cannot answer, and say so in x-gemini-model; may be repeated
    fallback: Vec<Chain> = rules::chains, or(""), "A=B,C", list;

    "Limits":
    /// connections at a time; beyond them the one that has been without a call for longest is cut
    connections: u64 = rules::whole::<1, 1_000_000>, or("4096"), "N";
    /// calls at a time on one connection of HTTP/2
    streams: u64 = rules::whole::<1, 10_000>, or("100"), "N";
    /// calls at a time in all; beyond them a call is refused with a 503
    calls: u64 = rules::whole::<1, 1_000_000>, or("4096"), "N";
    /// for a complete head, and how long a connection may be without a call
    head_time: Duration = rules::seconds::<3600>, or("30"), "SECONDS";
    /// for a complete body
    body_time: Duration = rules::seconds::<86_400>, or("600"), "SECONDS";
    /// how long a body may pause
    body_idle: Duration = rules::seconds::<3600>, or("30"), "SECONDS";
    /// the largest body
    body_mib: u64 = rules::whole::<1, 1_000_000>, or("2048"), "MIB";
    /// the largest body that is kept, so that it can be sent again
    replay_body_mib: u64 = rules::whole::<1, 1024>, or("32"), "MIB";
    /// all that is kept of bodies at a time
    replay_mib: u64 = rules::whole::<1, 1_000_000>, or("128"), "MIB";
    /// how long a client may read nothing of an answer that is there
    reader_idle: Duration = rules::seconds::<3600>, or("60"), "SECONDS";

    "Records":
    /// one line for each request on stdout: json, text or off
    log: Format = rules::log, or("text"), "FORMAT", fixed;
    /// keep a record of each call in SQLite
    history: String = rules::path, maybe(), "FILE", fixed;
    /// most that its records use
    history_mib: u64 = rules::whole::<1, 1_000_000>, or("1024"), "MIB", fixed;
    /// the age at which they go
    history_days: u64 = rules::whole::<1, 3660>, or("30"), "DAYS", fixed;
    /// send a span of each call to this OpenTelemetry collector, at /v1/traces by OTLP over HTTP, such as http://127.0.0.1:4318
    otlp: Base = rules::collector, maybe(), "URL", fixed;
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Declared> {
    DECLARED.iter().find(|declared| declared.name == name)
}

impl Declared {
    /// `--quota-wait`, without the dashes in front.
    pub fn option(&self) -> String {
        self.name.replace('_', "-")
    }

    /// `GATEWAY_QUOTA_WAIT`.
    pub fn variable(&self) -> String {
        format!("GATEWAY_{}", self.name.to_uppercase())
    }
}
