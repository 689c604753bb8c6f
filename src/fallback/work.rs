//! One request on its way along a chain.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, header};

use super::body::{FallbackBody, RewriteBody};
use super::chain::{Place, Plan, Step};
use super::config::{Settings, TurnedAway};
use super::decide::{Help, help, tier_helps};
use super::{json, path};
use crate::context;
use crate::context::deadline::Deadline;
use crate::error::{BoxError, Rejected, find};
use crate::event::LayerKind;
use crate::event::fallback::{AnsweredBy, FallbackRefusal};
use crate::event::{Event, GaveUp};
use crate::layer_order;
use crate::request::{ModelHint, Surface, Target};
use crate::retry::{self, Attempts, SharedAttempts};
use crate::tier::{self, ServiceTier, X_GEMINI_SERVICE_TIER, X_VERTEX_SHARED_REQUEST_TYPE};
use crate::time;
use crate::verdict::Verdict;

/// What is kept for a request with a chain.
pub(super) struct Work<S, B> {
    settings: Arc<Settings>,
    /// For every step but the first that is called.
    pub(super) service: S,
    /// Ready to be sent, while the service is not.
    pub(super) next: Option<Request<B>>,
    /// The request as it came. `None` while the last step is asked.
    kept: Option<Request<B>>,
    /// Its head, for the last resort, while the last step is asked.
    head: Option<Parts>,
    plan: Plan,
    /// The step of the plan that is asked.
    at: usize,
    carry: SharedAttempts,
}

pub(super) enum Next<RB> {
    Return(Result<Response<FallbackBody<RB>>, BoxError>),
    /// There is a request in `next`.
    Ask,
}

/// A step that was passed over, and why.
struct Passed(usize, Verdict);

impl<S, B: RewriteBody> Work<S, B> {
    pub(super) fn new(settings: Arc<Settings>, service: S, request: Request<B>, plan: Plan) -> Self {
        let (kept, carry) = (Some(request), SharedAttempts::default());
        Self { settings, service, next: None, kept, head: None, plan, at: 0, carry }
    }

    /// The request for the first step that is not known to be turned away; where all are, as it came, whose own error
    /// tells the truth.
    pub(super) fn first(&mut self) -> Request<B> {
        if self.plan.is_over() {
            // NOTE: as long as nobody knows whether there is a chain, no attempts are kept back for it.
            let mut request = self.original().clone();
            let carry = self.carry.reserving_nothing();
            context::Context::write_more(&mut request, |more| more.carry = Some(carry));
            return request;
        }
        let asked = self.prepare(0).expect("nothing is rewritten for what was asked");
        let Some(TurnedAway { verdict, .. }) = self.settings.turns_away(&asked) else { return asked };
        let helps = Helps { model: Help::Any, tier: tier_helps(&verdict, None, None) };
        match self.look(1, helps, vec![Passed(0, verdict)], false) {
            Ok(request) => request,
            // All are: what was asked for is waited for, and no attempts are kept back.
            Err(_) => {
                let mut asked = asked;
                let carry = self.carry.reserving_nothing();
                context::Context::write_more(&mut asked, |more| more.carry = Some(carry));
                asked
            }
        }
    }

    /// Decides what follows what a model answered.
    pub(super) fn after<RB>(&mut self, result: Result<Response<RB>, BoxError>) -> Next<RB> {
        let (verdict, helps) = match &result {
            Ok(response) if Verdict::is_good(response) => return Next::Return(self.answer(result)),
            Ok(response) => {
                let verdict = Verdict::of(response);
                let gave_up = response.extensions().get().and_then(Attempts::gave_up);
                let helps = Helps::of(&verdict, None, gave_up);
                (verdict, helps)
            }
            Err(error) => {
                let verdict = Verdict::from_error(error.as_ref());
                let helps = Helps::of(&verdict, find::<Rejected>(error.as_ref()), None);
                (verdict, helps)
            }
        };
        self.find_chain(helps.model, &verdict);
        if self.plan.is_over() {
            return Next::Return(self.answer(result));
        }
        if helps.any() && self.at + 1 < self.plan.len() {
            match self.look(self.at + 1, helps, vec![Passed(self.at, verdict.clone())], true) {
                // The failed response is dropped here, and with it its claim on the connection.
                Ok(request) => {
                    self.next = Some(request);
                    return Next::Ask;
                }
                Err(Some(why)) => {
                    let model = self.plan.model(self.plan.step(self.at)).map(AsRef::as_ref);
                    self.refuse(model, why, &verdict);
                }
                Err(None) => {}
            }
        }
        if let Some(response) = self.resort(&verdict) {
            return Next::Return(Ok(response.map(FallbackBody::own)));
        }
        Next::Return(self.answer(result))
    }

    /// Looks for the chain, which may have to be read from the body now that it was sent.
    fn find_chain(&mut self, help: Help, verdict: &Verdict) {
        if !self.plan.unread || self.kept.is_none() {
            return;
        }
        match self.original().body().whole() {
            Some(bytes) => {
                self.plan.unread = false;
                self.plan.chain = self.settings.chains.named_by(&bytes);
            }
            None if help != Help::None && !self.plan.has_ladder() => {
                self.refuse(None, FallbackRefusal::NotRewritable, verdict);
            }
            None => {}
        }
    }

    /// The request for the first step from `from` on that would help and is not known to be turned away. Where all are
    /// and `waits`, for the first whose circuit lets calls through before the deadline: it is waited for there.
    /// `Err(None)` where no step would help.
    fn look(
        &mut self,
        from: usize,
        helps: Helps,
        mut passed: Vec<Passed>,
        waits: bool,
    ) -> Result<Request<B>, Option<FallbackRefusal>> {
        let plan = self.plan.clone();
        let would = |at: &usize| match (plan.step(*at), &plan.chain) {
            (Step { tier: Some(_), .. }, _) => helps.tier,
            (step, Some(chain)) => match helps.model {
                Help::None => false,
                Help::Any => true,
                Help::Larger => chain.model(step.model).larger,
            },
            (_, None) => false,
        };
        let known = passed.len();
        let deadline = Deadline::of(self.original()).map(|deadline| deadline.instant());
        let mut opening = None;
        for at in (from..plan.len()).filter(would) {
            if deadline.is_some_and(|deadline| deadline <= time::now()) {
                return Err(Some(FallbackRefusal::Deadline));
            }
            if retry::is_lost(self.original()) {
                return Err(Some(FallbackRefusal::BodyLost));
            }
            let request = self.prepare(at).map_err(Some)?;
            let Some(TurnedAway { verdict, opens }) = self.settings.turns_away(&request) else {
                self.step_to(at, &passed);
                return Ok(request);
            };
            if waits && opening.is_none() && opens.is_some_and(|at| deadline.is_none_or(|end| at < end)) {
                opening = Some((at, request, passed.len()));
            }
            passed.push(Passed(at, verdict));
        }
        if let Some((at, mut request, before)) = opening {
            let carry = self.carry.reserving_nothing();
            context::Context::write_more(&mut request, |more| more.carry = Some(carry));
            self.step_to(at, &passed[..before]);
            return Ok(request);
        }
        Err((passed.len() > known).then_some(FallbackRefusal::Unavailable))
    }

    /// Goes on to a step, past those that are named.
    fn step_to(&mut self, at: usize, passed: &[Passed]) {
        let plan = &self.plan;
        let to = plan.step(at);
        for Passed(from, verdict) in passed {
            let from = plan.step(*from);
            let tier = plan.tier(to).filter(|tier| plan.tier(from) != Some(*tier));
            let name = |step| plan.model(step).map_or("?", AsRef::as_ref);
            let (from, to) = (name(from), Some(name(to)));
            self.settings.observer.tell(&Event::FellBack { from, to, tier, verdict });
        }
        self.at = at;
        if at + 1 == plan.len() && !plan.unread {
            let (head, _) = self.kept.take().expect("it is kept until the last step").into_parts();
            self.head = self.settings.last_resort.is_some().then_some(head);
        }
    }

    /// The request for one step.
    fn prepare(&self, at: usize) -> Result<Request<B>, FallbackRefusal> {
        let (plan, step) = (&self.plan, self.plan.step(at));
        let mut request = self.original().clone();
        if let Some(tier) = step.tier {
            retier(&mut request, tier).ok_or(FallbackRefusal::NotRewritable)?;
        }
        if let Some(chain) = &plan.chain {
            let (asked, model) = (chain.model(0), chain.model(step.model));
            if step.model > 0 {
                match plan.place {
                    Place::Path => {
                        let uri = path::rewrite(request.uri(), &asked.name, &model.name);
                        *request.uri_mut() = uri.ok_or(FallbackRefusal::NotRewritable)?;
                    }
                    Place::Body => rename(&mut request, &asked.name, &model.name)
                        .ok_or(FallbackRefusal::NotRewritable)?,
                }
            }
            // The layers inside keep their state by it.
            let extensions = request.extensions_mut();
            if plan.place == Place::Body || (step.model > 0 && extensions.get::<ModelHint>().is_some()) {
                extensions.insert(model.hint.clone());
            }
        }
        let carry = self.carry.reserving(plan.len() - 1 - at);
        context::Context::write_more(&mut request, |more| more.carry = Some(carry));
        Ok(request)
    }

    fn original(&self) -> &Request<B> {
        self.kept.as_ref().expect("it is kept until the last step is asked")
    }

    fn refuse(&self, model: Option<&str>, why: FallbackRefusal, verdict: &Verdict) {
        self.settings.observer.tell(&Event::FallbackRefused { model, why, verdict });
    }

    /// The last resort's answer.
    fn resort(&mut self, verdict: &Verdict) -> Option<Response<Bytes>> {
        let answer = self.settings.last_resort.as_ref()?;
        let head = self.head.take().or_else(|| self.kept.take().map(|request| request.into_parts().0))?;
        let mut response = answer(&head, verdict)?;
        response.extensions_mut().insert(AnsweredBy { model: None, tier: None, position: self.plan.len() });
        let from = self.plan.model(self.plan.step(self.at)).map_or("?", AsRef::as_ref);
        self.settings.observer.tell(&Event::FellBack { from, to: None, tier: None, verdict });
        Some(response)
    }

    /// What is handed on, marked where it is not of what was asked.
    fn answer<RB>(
        &self,
        result: Result<Response<RB>, BoxError>,
    ) -> Result<Response<FallbackBody<RB>>, BoxError> {
        let mut response = result?;
        if !Verdict::is_good(&response) {
            layer_order::passed(&mut response, LayerKind::Fallback, &self.settings.observer);
        }
        if self.at > 0 {
            let step = self.plan.step(self.at);
            let by = AnsweredBy { model: self.plan.model(step).cloned(), tier: step.tier, position: self.at };
            response.extensions_mut().insert(by);
            let named = self.plan.chain.as_ref().filter(|_| step.model > 0);
            if let (Some(name), Some(chain)) = (&self.settings.header, named) {
                response.headers_mut().insert(name.clone(), chain.model(step.model).header.clone());
            }
        }
        Ok(response.map(FallbackBody::inner))
    }
}

/// What would help after a failure.
#[derive(Clone, Copy)]
struct Helps {
    model: Help,
    tier: bool,
}

impl Helps {
    fn of(verdict: &Verdict, rejected: Option<&Rejected>, gave_up: Option<GaveUp>) -> Self {
        let tier = tier_helps(verdict, rejected, gave_up);
        Self { model: help(verdict, rejected, gave_up), tier }
    }

    fn any(self) -> bool {
        self.tier || self.model != Help::None
    }
}

/// Asks for another tier: by the header where the request has that or goes to Vertex AI, else in the body. `None` where
/// that cannot be rewritten.
fn retier<B: RewriteBody>(request: &mut Request<B>, tier: ServiceTier) -> Option<()> {
    let surface = Target::of(request).surface();
    if surface == Surface::Vertex || request.headers().contains_key(&X_VERTEX_SHARED_REQUEST_TYPE) {
        match tier {
            ServiceTier::Standard => drop(request.headers_mut().remove(&X_VERTEX_SHARED_REQUEST_TYPE)),
            tier => {
                let name = HeaderValue::from_static(tier.as_str());
                request.headers_mut().insert(&X_VERTEX_SHARED_REQUEST_TYPE, name);
            }
        }
    } else {
        let bytes = request.body().whole()?;
        // As OpenAI spells it.
        let standard = if surface == Surface::OpenAi { "default" } else { ServiceTier::Standard.as_str() };
        replace(request, tier::rewritten(&bytes, tier, standard)?);
        if request.headers().contains_key(&X_GEMINI_SERVICE_TIER) {
            request.headers_mut().insert(&X_GEMINI_SERVICE_TIER, HeaderValue::from_static(tier.as_str()));
        }
    }
    request.extensions_mut().insert(tier);
    Some(())
}

fn replace<B: RewriteBody>(request: &mut Request<B>, bytes: Bytes) {
    if let Some(length) = request.headers_mut().get_mut(header::CONTENT_LENGTH) {
        *length = HeaderValue::from(bytes.len());
    }
    B::replace(request, bytes);
}

/// Names another model in the request's body. `None` where that does not name `from`.
fn rename<B: RewriteBody>(request: &mut Request<B>, from: &str, to: &str) -> Option<()> {
    let bytes = request.body().whole()?;
    let named = json::read(&bytes).filter(|named| named.model == from)?;
    let renamed = named.replaced(&bytes, to);
    replace(request, renamed);
    Some(())
}
