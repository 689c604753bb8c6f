//! One request on its way along a chain.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};

use super::body::{FallbackBody, RewriteBody};
use super::chain::{Chain, Place, Plan};
use super::decide::{Help, help};
use super::layer::Settings;
use super::report::{AnsweredBy, Refusal};
use super::{json, path};
use crate::error::{BoxError, Rejected, find};
use crate::event::Event;
use crate::order::{self, Part};
use crate::retry::{self, Attempts, Carry};
use crate::target::ModelHint;
use crate::time;
use crate::timeout::Deadline;
use crate::verdict::Verdict;

/// What is kept for a request with a chain.
pub(super) struct Work<S, B> {
    settings: Arc<Settings>,
    /// For every model but the first that is called.
    pub(super) service: S,
    /// Ready to be sent, while the service is not.
    pub(super) next: Option<Request<B>>,
    /// The request as it came. `None` while the last model is asked.
    kept: Option<Request<B>>,
    /// Its head, for the last resort, while the last model is asked.
    head: Option<Parts>,
    plan: Plan,
    /// The place in the chain of the model that is asked.
    at: usize,
    carry: Carry,
}

pub(super) enum Next<RB> {
    Return(Result<Response<FallbackBody<RB>>, BoxError>),
    /// There is a request in `next`.
    Ask,
}

/// A model that was passed over, and why.
struct Passed(usize, Verdict);

impl<S, B: RewriteBody> Work<S, B> {
    pub(super) fn new(settings: Arc<Settings>, service: S, request: Request<B>, plan: Plan) -> Self {
        let (kept, carry) = (Some(request), Carry::default());
        Self { settings, service, next: None, kept, head: None, plan, at: 0, carry }
    }

    /// The request for the first model that is not known to be turned away; where all are, for the one that was
    /// asked, whose own error tells the truth.
    pub(super) fn first(&mut self) -> Request<B> {
        let Some(chain) = self.plan.chain.clone() else {
            // NOTE: as long as nobody knows whether there is a chain, no attempts are kept back for it.
            let mut request = self.original().clone();
            request.extensions_mut().insert(self.carry.reserving_nothing());
            return request;
        };
        let asked = self.prepare(&chain, 0).expect("nothing is rewritten for the model that was asked");
        let Some(verdict) = self.settings.turns_away(&asked) else { return asked };
        match self.look(&chain, 1, Help::Any, vec![Passed(0, verdict)]) {
            Ok(request) => request,
            Err(_) => asked,
        }
    }

    /// Decides what follows what a model answered.
    pub(super) fn after<RB>(&mut self, result: Result<Response<RB>, BoxError>) -> Next<RB> {
        let (verdict, help) = match &result {
            Ok(response) if Verdict::is_good(response) => return Next::Return(self.answer(result)),
            Ok(response) => {
                let verdict = Verdict::of(response);
                let gave_up = response.extensions().get().and_then(Attempts::gave_up);
                let help = help(&verdict, None, gave_up);
                (verdict, help)
            }
            Err(error) => {
                let verdict = Verdict::from_error(error.as_ref());
                let help = help(&verdict, find::<Rejected>(error.as_ref()), None);
                (verdict, help)
            }
        };
        let Some(chain) = self.chain(help, &verdict) else { return Next::Return(self.answer(result)) };
        if help != Help::None && self.at + 1 < chain.len() {
            match self.look(&chain, self.at + 1, help, vec![Passed(self.at, verdict.clone())]) {
                // The failed response is dropped here, and with it its claim on the connection.
                Ok(request) => {
                    self.next = Some(request);
                    return Next::Ask;
                }
                Err(Some(why)) => self.refuse(Some(&chain.model(self.at).name), why, &verdict),
                Err(None) => {}
            }
        }
        if let Some(response) = self.resort(&chain, &verdict) {
            return Next::Return(Ok(response.map(FallbackBody::own)));
        }
        Next::Return(self.answer(result))
    }

    /// The chain, which may have to be read from the body now that it was sent.
    fn chain(&mut self, help: Help, verdict: &Verdict) -> Option<Arc<Chain>> {
        if self.plan.chain.is_none() {
            let bytes = self.original().body().whole();
            if bytes.is_none() && help != Help::None {
                self.refuse(None, Refusal::NotRewritable, verdict);
            }
            self.plan.chain = self.settings.chains.named_by(&bytes?);
        }
        self.plan.chain.clone()
    }

    /// The request for the first model from `from` on that would help and is not known to be turned away. `Err(None)`
    /// where there is no such model.
    fn look(
        &mut self,
        chain: &Arc<Chain>,
        from: usize,
        help: Help,
        mut passed: Vec<Passed>,
    ) -> Result<Request<B>, Option<Refusal>> {
        let helps = |at: &usize| help != Help::Larger || chain.model(*at).larger;
        let known = passed.len();
        for at in (from..chain.len()).filter(helps) {
            let original = self.original();
            if Deadline::of(original).is_some_and(|deadline| deadline.instant() <= time::now()) {
                return Err(Some(Refusal::Deadline));
            }
            if retry::is_lost(original) {
                return Err(Some(Refusal::BodyLost));
            }
            let request = self.prepare(chain, at).map_err(Some)?;
            if let Some(verdict) = self.settings.turns_away(&request) {
                passed.push(Passed(at, verdict));
                continue;
            }
            for Passed(from, verdict) in &passed {
                let (from, to) = (&*chain.model(*from).name, Some(&*chain.model(at).name));
                self.settings.observer.tell(&Event::FellBack { from, to, tier: None, verdict });
            }
            self.at = at;
            if at + 1 == chain.len() {
                let (head, _) = self.kept.take().expect("it is kept until the last model").into_parts();
                self.head = self.settings.last_resort.is_some().then_some(head);
            }
            return Ok(request);
        }
        Err((passed.len() > known).then_some(Refusal::Unavailable))
    }

    /// The request for one model of the chain.
    fn prepare(&self, chain: &Chain, at: usize) -> Result<Request<B>, Refusal> {
        let (asked, model) = (chain.model(0), chain.model(at));
        let mut request = self.original().clone();
        if at > 0 {
            match self.plan.place {
                Place::Path => {
                    let uri = path::rewrite(request.uri(), &asked.name, &model.name);
                    *request.uri_mut() = uri.ok_or(Refusal::NotRewritable)?;
                }
                Place::Body => {
                    rename(&mut request, &asked.name, &model.name).ok_or(Refusal::NotRewritable)?
                }
            }
        }
        // The layers inside keep their state by it.
        let extensions = request.extensions_mut();
        if self.plan.place == Place::Body || (at > 0 && extensions.get::<ModelHint>().is_some()) {
            extensions.insert(model.hint.clone());
        }
        extensions.insert(self.carry.reserving(chain.len() - 1 - at));
        Ok(request)
    }

    fn original(&self) -> &Request<B> {
        self.kept.as_ref().expect("it is kept until the last model is asked")
    }

    fn refuse(&self, model: Option<&str>, why: Refusal, verdict: &Verdict) {
        self.settings.observer.tell(&Event::FallbackRefused { model, why, verdict });
    }

    /// The last resort's answer.
    fn resort(&mut self, chain: &Chain, verdict: &Verdict) -> Option<Response<Bytes>> {
        let answer = self.settings.last_resort.as_ref()?;
        let head = self.head.take().or_else(|| self.kept.take().map(|request| request.into_parts().0))?;
        let mut response = answer(&head, verdict)?;
        response.extensions_mut().insert(AnsweredBy { model: None, position: chain.len() });
        let from = &*chain.model(self.at).name;
        self.settings.observer.tell(&Event::FellBack { from, to: None, tier: None, verdict });
        Some(response)
    }

    /// What is handed on, marked where it is not of the model that was asked.
    fn answer<RB>(
        &self,
        result: Result<Response<RB>, BoxError>,
    ) -> Result<Response<FallbackBody<RB>>, BoxError> {
        let mut response = result?;
        if !Verdict::is_good(&response) {
            order::passed(&mut response, Part::Fallback, &self.settings.observer);
        }
        if let Some(chain) = self.plan.chain.as_ref().filter(|_| self.at > 0) {
            let model = chain.model(self.at);
            let by = AnsweredBy { model: Some(Arc::clone(&model.name)), position: self.at };
            response.extensions_mut().insert(by);
            if let Some(name) = &self.settings.header {
                response.headers_mut().insert(name.clone(), model.header.clone());
            }
        }
        Ok(response.map(FallbackBody::inner))
    }
}

/// Names another model in the request's body. `None` where that does not name `from`.
fn rename<B: RewriteBody>(request: &mut Request<B>, from: &str, to: &str) -> Option<()> {
    let bytes = request.body().whole()?;
    let named = json::read(&bytes).filter(|named| named.model == from)?;
    let renamed = named.replaced(&bytes, to);
    if let Some(length) = request.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *length = HeaderValue::from(renamed.len());
    }
    B::replace(request, renamed);
    Some(())
}
