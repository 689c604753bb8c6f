//! Settings that change while calls go on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tower_gemini::event::Observer;
use tower_gemini::retry::Budget;

use crate::clients::Clients;
use crate::pages::Pages;
use crate::proxy::{self, Proxy};
use crate::settings::{Acts, Origin, Settings};
use crate::stack::{Stack, stack};
use crate::tls::Tls;
use crate::{intake, serve};

/// What a reload reads, and where it puts it.
pub struct Reload {
    pub settings: Settings,
    /// `None`: only the clients and the certificate are read again.
    pub origin: Option<Origin>,
    pub stack: Stack,
    pub budget: Budget,
    pub observer: Arc<dyn Observer>,
    pub proxy: Proxy,
    pub pages: Arc<Pages>,
    pub clients: Option<Arc<Clients>>,
    pub tls: Option<Tls>,
    pub limits: serve::Live,
    /// The drain's delay and the grace.
    pub times: Arc<Mutex<(Duration, Duration)>>,
}

impl Reload {
    /// What was read, for a person.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, with its place. Then nothing has changed.
    pub fn again(&mut self) -> Result<String, String> {
        let settings = match &self.origin {
            Some(origin) => origin.again(&self.settings)?,
            None => self.settings.clone(),
        };
        let clients = self.clients.as_ref().map(|clients| clients.again()).transpose()?;
        let tls = self.tls.as_ref().map(Tls::again).transpose()?;
        let before = Some((&self.settings, &self.stack, &self.budget));
        let (stack, handles) = stack(&settings, &self.observer, before)?;
        // Nothing fails from here on.
        let mut said = "the settings were read".to_owned();
        if let (Some(known), Some(table)) = (&self.clients, clients) {
            said += &format!(", {} clients", known.put(table));
        }
        if let (Some(known), Some(config)) = (&self.tls, tls) {
            known.put(config);
        }
        self.pages.put(handles);
        self.proxy.put(&stack, calls(&settings), &settings.fallback);
        self.limits.set(connections(&settings));
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = (settings.drain_delay, settings.grace);
        (self.stack, self.settings) = (stack, settings);
        Ok(said)
    }
}

/// The limits of connections.
pub fn connections(settings: &Settings) -> serve::Limits {
    serve::Limits {
        idle: settings.head_time,
        connections: usize::try_from(settings.connections).unwrap_or(usize::MAX),
        streams: u32::try_from(settings.streams).unwrap_or(u32::MAX),
        reader: settings.reader_idle,
    }
}

/// The limits of calls.
pub fn calls(settings: &Settings) -> proxy::Limits {
    let mib = |many: u64| usize::try_from(many << 20).unwrap_or(usize::MAX);
    proxy::Limits {
        bodies: intake::Limits {
            time: settings.body_time,
            idle: settings.body_idle,
            most: settings.body_mib << 20,
            kept: mib(settings.replay_body_mib),
            all: mib(settings.replay_mib),
        },
        calls: usize::try_from(settings.calls).unwrap_or(usize::MAX),
        observes: settings.breaker == Acts::Observe,
        pause: (settings.idle_mode == Acts::Observe).then_some(settings.idle),
    }
}
