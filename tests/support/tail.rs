//! What second tries can make of a slow tail, whatever rule sends them.

/// How long answers take: log-normal around a median, a share of them so many times longer.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median: f64,
    pub(crate) sigma: f64,
    pub(crate) share: f64,
    pub(crate) factor: f64,
}

impl Times {
    /// The share of the answers that lasts longer.
    pub(crate) fn slower_than(self, secs: f64) -> f64 {
        let of = |median: f64| 1.0 - normal((secs / median).ln() / self.sigma);
        let slow = || self.share * of(self.median * self.factor);
        if secs <= 0.0 { 1.0 } else { (1.0 - self.share) * of(self.median) + slow() }
    }

    /// The least 99th percentile that any rule can have which knows how long a call has lasted and may send so many second
    /// tries for each call.
    ///
    /// A rule sends one at age `h` with some chance `g(h)`. It costs the sum of `g(h) S(h)`, and more than `t` then lasts a
    /// share of `S(t) (1 - sum of g(h) F(t - h))`. Both are linear in `g`, whose sum is at most 1, so the best is on the upper
    /// hull of the points `(S(h), F(t - h))` at the cost that is allowed. Which of the two calls is dropped, and when, changes
    /// neither: a first call that is given up for the second costs the same and can only be missed.
    pub(crate) fn least_p99(self, budget: f64) -> f64 {
        let (mut low, mut high) = (self.median / 2.0, self.median * self.factor * 10.0);
        assert!(self.slower_than(high) < 0.01, "the 99th percentile is below it");
        for _ in 0..20 {
            let middle = (low + high) / 2.0;
            *(if self.left(middle, budget) > 0.01 { &mut low } else { &mut high }) = middle;
        }
        high
    }

    /// The least share that lasts longer than `t`.
    fn left(self, t: f64, budget: f64) -> f64 {
        let ages = (0..=(t / 0.02) as usize).map(|n| n as f64 * 0.02);
        let mut points: Vec<_> = ages.map(|h| (self.slower_than(h), 1.0 - self.slower_than(t - h))).collect();
        points.push((0.0, 0.0));
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let mut hull: Vec<(f64, f64)> = Vec::new();
        for (x, y) in points {
            if hull.last().is_some_and(|last| y <= last.1) {
                continue;
            }
            while let [.., (x0, y0), (x1, y1)] = hull[..] {
                if (y1 - y0) * (x - x0) > (y - y0) * (x1 - x0) {
                    break;
                }
                hull.pop();
            }
            hull.push((x, y));
        }
        let helped =
            hull.windows(2).find(|pair| pair[1].0 >= budget).map_or(hull[hull.len() - 1].1, |pair| {
                let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
                y0 + (y1 - y0) * (budget - x0) / (x1 - x0)
            });
        self.slower_than(t) * (1.0 - helped)
    }
}

/// The distribution function of the standard normal distribution, to seven digits (Abramowitz and Stegun 26.2.17).
fn normal(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let c = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let tail =
        (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * c.iter().fold(0.0, |sum, c| (sum + c) * t);
    if x < 0.0 { tail } else { 1.0 - tail }
}
