/* The status page of hr-prometheus.

The page polls the metrics themselves, in Prometheus' text format, and computes rates and quantiles from the differences
between two polls, as Prometheus does. So it shows the numbers that every other reader of the metrics gets.

  Scrape      the text of a poll → the numbers of its series
  Counters    the numbers of some series → how much they have grown since the last poll
  Windows     growth over the last ten minutes, in steps of five seconds
  Route, Model   what is known of each route and of all
  Chart, Heatmap, Table, …   the model → the document
  Poller      when to ask, and what to do without an answer

Label values are chosen by clients, so nothing is ever written to the document as HTML. */

"use strict";

(() => {
  const POLL_MS = 1000;
  const HIDDEN_POLL_MS = 5000;
  const TIMEOUT_MS = 10000;
  const KEEP_S = 600; // seconds that are kept
  const STEP_S = 5; // seconds of a step of the windows
  const STEPS = KEEP_S / STEP_S;
  const NOW_S = 10; // seconds over which the charts and the large numbers are smoothed
  const YOUNG_S = 60; // seconds that the charts show at least
  const PAGE_ROWS = 50; // rows of the table that one press of "Show more" adds
  const SLICE_MS = 25; // for which new lines are read without a break
  const GAP_S = 2.5 * (HIDDEN_POLL_MS / 1000); // seconds between two polls from which on nothing is known of what was between
  const LEAST_REQUESTS = 10; // in the time range, for a route to be called slow: the p95 of fewer is that of one request

  // Worst first: so they lie at the bottom of the stack, where their height can be read.
  const CLASSES = [
    { name: "5xx", label: "5xx", is: (status) => status[0] === "5" },
    { name: "499", label: "499", is: (status) => status === "499" },
    { name: "4xx", label: "4xx", is: (status) => status[0] === "4" },
    { name: "3xx", label: "3xx", is: (status) => status[0] === "3" },
    { name: "2xx", label: "2xx", is: (status) => status[0] === "1" || status[0] === "2" },
    { name: "other", label: "other", is: () => true },
  ];
  const [C5XX, C499, C4XX] = [0, 1, 2];
  const QUANTILES = [
    { name: "p50", q: 0.5, dash: [] },
    { name: "p95", q: 0.95, dash: [6, 3] },
    { name: "p99", q: 0.99, dash: [2, 2] },
  ];

  // What a window has of a route, before the buckets of its latencies. The sum of these comes last, as it goes with them.
  const SUMS = ["sent", "received", "loop", "blocked", "blockedSeconds", "failed", "latency"];
  const SUM = Object.fromEntries(SUMS.map((name, index) => [name, CLASSES.length + index]));
  const BUCKETS = CLASSES.length + SUMS.length;

  // The names of the request metrics and their labels, as hr_prometheus/names.py has them; a prefix may come before. Of several
  // sets in one scrape the first is read. What a set has no name for has the seed's, with the seed's labels.
  const LATENCY_HELP =
    "Seconds from the beginning of a request's handling until the last byte of its response was handed to the transport";
  const NAME_SETS = {
    seed: {
      labels: { method: "method", path: "path", status: "status" },
      samples: {
        requests: "request_count_total", buckets: "request_latency_bucket", latency: "request_latency_sum",
        progress: "requests_in_progress", received: "request_size_bytes_sum", sent: "response_size_bytes_sum",
        loop: "request_loop_seconds_total",
      },
    },
    http: {
      labels: { method: "method", path: "handler", status: "status" },
      samples: {
        requests: "http_requests_total", buckets: "http_request_duration_seconds_bucket", latency: "http_request_duration_seconds_sum",
        progress: "http_requests_in_progress", received: "http_request_size_bytes_sum", sent: "http_response_size_bytes_sum",
      },
    },
    otel: {
      labels: { method: "http_request_method", path: "http_route", status: "http_response_status_code" },
      samples: {
        requests: "http_server_request_duration_seconds_count", buckets: "http_server_request_duration_seconds_bucket",
        latency: "http_server_request_duration_seconds_sum", progress: "http_server_active_requests",
      },
    },
  };

  // -- numbers

  /** Return the q-quantile of a histogram: cumulative counts at ascending bounds; the last one is infinite.

  Null without observations or a finite bound; Infinity above the last one. Within a bucket it is interpolated as Prometheus
  does. */
  function quantile(q, counts, bounds, from = 0) {
    const last = bounds.length - 1;
    const total = last < 1 ? 0 : counts[from + last];
    if (!(total > 0)) return null;
    const rank = q * total;
    let index = 0;
    while (index < last && counts[from + index] < rank) index++;
    if (index === last) return Infinity;
    const below = index ? counts[from + index - 1] : 0;
    const low = index ? bounds[index - 1] : Math.min(0, bounds[0]);
    const within = counts[from + index] - below;
    return within > 0 ? low + ((bounds[index] - low) * (rank - below)) / within : bounds[index];
  }

  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const digits = (value, significant) => String(Number(value.toPrecision(significant)));

  function showNumber(value) {
    if (value == null || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    if (value < 0.095) return digits(value, 1);
    if (value < 99.95) return value.toFixed(1);
    if (value < 9999.5) return grouped.format(value);
    for (const [unit, size] of [["k", 1e3], ["M", 1e6], ["G", 1e9]])
      if (value < size * 999.5) return `${digits(value / size, 3)} ${unit}`;
    return value.toExponential(1);
  }

  const showCount = (value) => (Number.isInteger(value) ? grouped.format(value) : showNumber(value));

  /** Return a time in words; for one above the last finite bound of a histogram, that bound. */
  function showSeconds(value, bounds) {
    if (value == null || Number.isNaN(value)) return "–";
    if (value === Infinity) return bounds && bounds.length > 1 ? `> ${showBound(lastOf(bounds))}` : "∞";
    if (value < 0.00995) return `${(value * 1e3).toPrecision(2)} ms`;
    if (value < 0.9995) return `${(value * 1e3).toFixed(0)} ms`;
    if (value < 99.95) return `${value.toPrecision(3)} s`;
    return showDuration(value);
  }

  /** Return the last finite bound. */
  const lastOf = (bounds) => bounds[bounds.length - 2];
  const showBound = (value) => showSeconds(value).replace(/(\.\d*?)0+ /, "$1 ").replace(". ", " ");
  /** Return a time for an axis, which has no room for minutes and seconds. */
  const showTick = (value) => (value < 99.95 ? showBound(value) : `${grouped.format(value)} s`);

  function showBytes(value) {
    if (value == null || Number.isNaN(value)) return "–";
    if (value < 999.5) return `${grouped.format(value)} B`;
    for (const [unit, size] of [["kB", 1e3], ["MB", 1e6], ["GB", 1e9]])
      if (value < size * 999.5) return `${(value / size).toPrecision(3)} ${unit}`;
    return `${grouped.format(value / 1e12)} TB`;
  }

  function showShare(value) {
    if (value == null || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const percent = value * 100;
    return `${percent < 0.1 ? "< 0.1" : percent < 9.95 ? percent.toFixed(1) : percent.toFixed(0)} %`;
  }

  function showDuration(seconds) {
    const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
    const index = units.findIndex(([, size]) => seconds >= size);
    if (index < 0) return "0 s";
    const [unit, size] = units[index];
    const whole = Math.floor(seconds / size);
    const next = units[index + 1];
    const rest = next ? Math.floor((seconds - whole * size) / next[1]) : 0;
    return `${whole} ${unit}${rest ? ` ${rest} ${next[0]}` : ""}`;
  }

  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  /** Return the time in epoch seconds, by a clock that is never set back. */
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
  const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });

  /** Return a time, with its date if that is not today's. */
  function showTime(epoch) {
    const date = new Date(epoch * 1000);
    return `${date.toDateString() === new Date().toDateString() ? "" : `${day.format(date)}, `}${clock.format(date)}`;
  }

  const NO_REQUESTS = "There are no metrics of requests: none was recorded yet, or the application has a monitor of its own.";

  /** Return a text that shows its control characters, and those that turn the direction of writing. */
  const visible = (text) => text.replace(/[\p{Cc}\p{Cf}]/gu, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);

  // -- reading a scrape

  /** Let the browser draw, and take what is typed. */
  const breathe = () => new Promise((resolve) => setTimeout(resolve));

  const UNESCAPED = { n: "\n", "\\": "\\", '"': '"' };
  const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

  /** What a proxy answers in the place of the server may be anything: a page to sign in, half of a scrape, nothing. */
  class NoScrape extends Error {
    constructor() {
      super("its answer is not a scrape");
    }
  }

  /** Return the labels between the braces of a series, and the position after them. */
  function parseLabels(text, at) {
    const labels = {};
    while (text[at] !== "}") {
      const equals = text.indexOf("=", at);
      const name = text.slice(at, equals);
      if (equals < 0 || text[equals + 1] !== '"' || !NAME.test(name)) throw new NoScrape();
      let end = equals + 2;
      while (text[end] !== '"') {
        end += text[end] === "\\" ? 2 : 1;
        if (end >= text.length) throw new NoScrape();
      }
      const value = text.slice(equals + 2, end);
      labels[name] = value.includes("\\") ? value.replace(/\\(.)/g, (_, each) => UNESCAPED[each] ?? each) : value;
      at = text[end + 1] === "," ? end + 2 : end + 1;
    }
    return [labels, at + 1];
  }

  /** Reads the text of scrapes. *locate* returns the array and the index to which the number of a new series is added, or, for
  one with a bound, what has a method *bucket* that returns them.

  From one scrape to the next the lines are the same but for their numbers, so each line is compared with the one that was in
  its place, and parsed only if it differs. That makes a scrape of 100,000 lines a matter of milliseconds. */
  class Scrape {
    constructor(locate) {
      this.locate = locate;
      this.lines = [];
      this.known = null; // the lines by their heads, made when they are looked for
      this.buckets = null; // what the lines of the last new histogram have in common, and that histogram
    }

    async read(text) {
      let until = performance.now() + SLICE_MS;
      let looked = 0;
      const before = this.lines;
      let lines = before; // until one differs
      const end = text.length;
      let number = 0;
      let expected = 0;
      let at = 0;
      while (at < end) {
        const first = text.charCodeAt(at);
        if (first === 35 || first === 10) { // a comment, an empty line
          at = text.indexOf("\n", at) + 1 || end;
          continue;
        }
        let line = before[expected];
        // Four times as fast as startsWith.
        if (line !== undefined && text.slice(at, at + line.head.length) === line.head) {
          expected++;
        } else {
          if (lines === before) lines = before.slice(0, number);
          line = this.look(text, at);
          if (line.place >= 0) expected = line.place + 1;
          // The first scrape of many lines is read piece by piece, so that the page stays usable.
          if (++looked % 1000 === 0 && performance.now() > until && !document.hidden) {
            await breathe();
            until = performance.now() + SLICE_MS;
          }
        }
        if (lines !== before) lines.push(line);
        number++;
        at += line.head.length;
        let value = 0;
        let code = text.charCodeAt(at);
        const start = at;
        while (code >= 48 && code <= 57) {
          value = value * 10 + code - 48;
          code = text.charCodeAt(++at);
        }
        // Counts end in ".0"; anything else is left to the language.
        if (code === 46 && text.charCodeAt(at + 1) === 48 && text.charCodeAt(at + 2) === 10) {
          at += 3;
        } else {
          const newline = text.indexOf("\n", at);
          at = newline < 0 ? end : newline;
          value = parseValue(text.slice(start, at));
          at++;
        }
        line.array[line.index] += value;
      }
      if (looked >= 1000 && !document.hidden) await breathe();
      if (lines !== before || number < before.length) this.keep(lines.slice(0, number));
      return number;
    }

    /** Replace the lines by others. */
    keep(lines) {
      for (const line of this.lines) {
        line.place = -1;
        line.histogram?.forget();
      }
      this.lines = lines;
      lines.forEach((line, place) => {
        line.place = place;
        line.histogram?.note(line.index);
      });
    }

    /** Locate all lines anew from now on. */
    forget() {
      this.keep([]);
      this.known = this.buckets = null;
    }

    look(text, at) {
      const [head, place, histogram] = this.parseBucket(text, at) ?? this.parseHead(text, at);
      if (this.lines.length) {
        this.known ??= new Map(this.lines.map((line) => [line.head, line]));
        const line = this.known.get(head);
        if (line !== undefined) return line;
      }
      const [array, index] = place ?? [[0], 0];
      const line = { head, array, index, histogram, place: -1 };
      this.known?.set(head, line);
      return line;
    }

    /** Return a line's text before its number, the place of the number, and the histogram if it is a bucket. */
    parseHead(text, at) {
      let end = at;
      while (end < text.length && text.charCodeAt(end) !== 123 && text.charCodeAt(end) !== 32) end++; // a brace, a space
      const name = text.slice(at, end);
      if (!NAME.test(name)) throw new NoScrape();
      const [labels, behind] = text[end] === "{" ? parseLabels(text, end + 1) : [{}, end];
      const head = text.slice(at, behind + 1); // with the space before the number
      const place = this.locate(name, labels);
      if (!place?.bucket) return [head, place];
      const bound = /(?<=[{,]le=")[^"]*/.exec(head);
      this.buckets = bound && { start: head.slice(0, bound.index), end: head.slice(bound.index + bound[0].length), histogram: place };
      return [head, place.bucket(labels.le), place];
    }

    /** Return the same of a line that has nothing but another bound than the line before, as most lines have. */
    parseBucket(text, at) {
      if (!this.buckets) return null;
      const { start, end, histogram } = this.buckets;
      const bound = at + start.length;
      const quote = text.slice(at, bound) === start ? text.indexOf('"', bound) : -1;
      if (quote < 0 || !text.startsWith(end, quote)) return null;
      return [text.slice(at, quote + end.length), histogram.bucket(text.slice(bound, quote)), histogram];
    }
  }

  function parseValue(text) {
    const value = parseFloat(text);
    if (!Number.isNaN(value)) return value;
    return text.startsWith("+Inf") ? Infinity : text.startsWith("-Inf") ? -Infinity : 0;
  }

  /** Counters by key, and how much each has grown since the poll before. */
  class Counters {
    constructor() {
      this.keys = [];
      this.next = []; // what the poll that is being read adds up
      this.last = [];
      this.growth = [];
    }

    index(key) {
      const index = this.keys.indexOf(key);
      if (index >= 0) return index;
      this.next.push(0);
      this.last.push(0);
      this.growth.push(0);
      return this.keys.push(key) - 1;
    }

    place(key) {
      return [this.next, this.index(key)];
    }

    begin() {
      this.next.fill(0);
    }

    /** Note that all begin anew. */
    restart() {
      this.last.fill(0);
    }

    /** Compute the growth. Returns whether a counter has begun anew: what it says is then what it has grown by. */
    settle(isFirst) {
      const { next, last, growth } = this;
      let isReset = false;
      for (let index = 0; index < next.length; index++) {
        const value = next[index];
        if (value === last[index]) {
          growth[index] = 0;
          continue;
        }
        const isLess = value < last[index];
        isReset ||= isLess;
        growth[index] = isFirst ? 0 : isLess ? value : value - last[index];
        last[index] = value;
      }
      return isReset;
    }
  }

  const sameBounds = new Map();
  /** Return the one array of these bounds, so that those of many routes are compared as one. */
  function shared(bounds) {
    const key = String(bounds);
    if (!sameBounds.has(key)) sameBounds.set(key, bounds);
    return sameBounds.get(key);
  }

  /** A histogram with all series added up. Only bounds that all of them have can be. */
  class Histogram extends Counters {
    constructor() {
      super();
      this.lines = []; // of each counter, how many series the scrape has
      this.series = 0;
      this.bounds = shared([]); // ascending
      this.places = []; // of each bound, its counter
      this.isChanged = false;
    }

    bucket(le) {
      return this.place(le === "+Inf" ? Infinity : Number(le));
    }

    /** Note that the series of the scrape are others. */
    forget() {
      this.lines.fill(0);
      this.isChanged = true;
    }

    /** Note that one of them has the bound of a counter. */
    note(index) {
      this.lines[index] = (this.lines[index] ?? 0) + 1;
      this.isChanged = true;
    }

    settle(isFirst) {
      if (this.isChanged) this.findBounds();
      return super.settle(isFirst);
    }

    /** Find the bounds of all series. Without any they stay, as what was counted in them stays in the windows. */
    findBounds() {
      this.isChanged = false;
      this.series = this.lines[this.keys.indexOf(Infinity)] ?? 0;
      if (!this.series) return;
      this.places = [...this.keys.keys()].filter((place) => this.lines[place] === this.series);
      this.places.sort((one, other) => this.keys[one] - this.keys[other]);
      this.bounds = shared(this.places.map((place) => this.keys[place]));
    }
  }

  /** Sums over the last *steps* steps, of vectors of numbers. A step without growth takes no memory. */
  class Windows {
    constructor(width, now, steps) {
      this.ring = []; // of each step its growth; steps without any have none
      this.sum = new Float64Array(width);
      this.now = now;
      this.steps = steps;
    }

    advance(now) {
      for (let ended = 0; this.now < now && ended < STEPS; ended++) {
        this.now++;
        this.forget(this.now - this.steps);
        if (this.ring[this.now % STEPS]) this.ring[this.now % STEPS] = null;
      }
      this.now = now;
    }

    forget(step) {
      const old = this.ring[step % STEPS];
      if (!old) return;
      for (let index = 0; index < old.length; index++) {
        const rest = this.sum[index] - old[index];
        this.sum[index] = Math.abs(rest) <= 1e-9 * old[index] ? 0 : rest; // no drift of fractions is left
      }
    }

    /** Add growth to steps: *parts* has how many steps ago each was, and its share. */
    add(growth, parts) {
      for (const [back, share] of parts) {
        const step = (this.ring[(this.now - back + STEPS) % STEPS] ??= new Float64Array(this.sum.length));
        const isInRange = back < this.steps;
        for (let index = 0; index < step.length; index++) {
          const part = growth[index] * share;
          step[index] += part;
          if (isInRange) this.sum[index] += part;
        }
      }
    }

    resize(steps) {
      this.steps = steps;
      this.sum.fill(0);
      for (let back = 0; back < steps; back++) {
        const step = this.ring[(this.now - back + STEPS) % STEPS];
        if (step) for (let index = 0; index < step.length; index++) this.sum[index] += step[index];
      }
    }

    /** Make the vectors of another width. Of their numbers the first *kept* stay. */
    reshape(width, kept) {
      const reshaped = (vector) => {
        const other = new Float64Array(width);
        other.set(vector.subarray(0, kept));
        return other;
      };
      this.ring = this.ring.map((step) => step && reshaped(step));
      this.sum = reshaped(this.sum);
    }

    /** Return the step that many steps ago, or null if nothing has grown in it. */
    ago(steps) {
      return this.ring[(this.now - steps + STEPS) % STEPS];
    }
  }

  // -- what is known

  /** A route label with its method: its numbers, and what they have grown by. */
  class Route {
    constructor(method, path, host) {
      Object.assign(this, { method: visible(method), path: visible(path), host: visible(host) });
      this.label = `${this.method} ${this.path}${host ? ` (${this.host})` : ""}`.trim();
      this.words = `${method} ${host} ${path}`.toLowerCase();
      this.statuses = new Counters();
      this.sums = new Counters();
      for (const name of SUMS) this.sums.index(name);
      this.latencies = new Histogram();
      this.shape = null; // the bounds that its windows have
      this.gauges = [0]; // requests in progress
      this.windows = null;
      this.growth = null;
      this.grown = -Infinity; // the last step in which it has
      this.row = null;
      this.isServed = false; // else it has only blocked the event loop, as what is in the background may
    }

    get bounds() {
      return this.latencies.bounds;
    }

    begin() {
      this.statuses.begin();
      this.sums.begin();
      this.latencies.begin();
      this.gauges[0] = 0;
    }

    restart() {
      for (const each of [this.statuses, this.sums, this.latencies]) each.restart();
    }

    /** Compute the growth. Returns whether a counter has begun anew. */
    settle(isFirst) {
      const isReset = [this.statuses, this.sums, this.latencies].map((each) => each.settle(isFirst)).some(Boolean);
      const { bounds, places } = this.latencies;
      if (this.shape !== bounds) {
        // Latencies that were counted with other bounds cannot be added to those which come.
        this.growth = new Float64Array(BUCKETS + bounds.length);
        this.windows?.reshape(this.growth.length, SUM.latency);
        this.shape = bounds;
      }
      const { growth } = this;
      growth.fill(0);
      let total = 0;
      this.statuses.growth.forEach((value, index) => {
        if (value) growth[classOf(this.statuses.keys[index])] += value;
      });
      for (let index = 0; index < SUMS.length; index++) growth[CLASSES.length + index] = this.sums.growth[index];
      for (let index = 0; index < places.length; index++) growth[BUCKETS + index] = this.latencies.growth[places[index]];
      for (const value of growth) total += value;
      this.hasGrown = total > 0;
      return isReset;
    }

    count() {
      const { sum } = this.windows;
      let total = 0;
      for (let index = 0; index < CLASSES.length; index++) total += sum[index];
      return total;
    }

    share(index) {
      const total = this.count();
      return total ? this.windows.sum[index] / total : null;
    }

    quantile(q) {
      return quantile(q, this.windows.sum, this.bounds, BUCKETS);
    }
  }

  /** Return the steps of a time that ends now: how many steps ago each was, and its share of the time.

  A poll like any other is that of one step, so that counts are whole numbers. */
  function partsOf(begin, end) {
    const last = Math.floor(end / STEP_S);
    if (end - begin < STEP_S / 2) return [[0, 1]];
    const from = Math.max(Math.floor(begin / STEP_S), last - STEPS + 1);
    return Array.from({ length: last - from + 1 }, (_, index) => {
      const step = from + index;
      return [last - step, (Math.min(end, (step + 1) * STEP_S) - Math.max(begin, step * STEP_S)) / (end - begin)];
    });
  }

  const classes = new Map();
  function classOf(status) {
    if (!classes.has(status)) classes.set(status, CLASSES.findIndex(({ is }) => is(status)));
    return classes.get(status);
  }

  /** Return what the samples of a name set are, by their names: their kind, and the names of their labels. */
  function samplesOf(set) {
    const own = NAME_SETS[set];
    const samples = Object.entries({ ...NAME_SETS.seed.samples, ...own.samples });
    return new Map(samples.map(([kind, name]) => [name, { kind, labels: (kind in own.samples ? own : NAME_SETS.seed).labels }]));
  }

  /** Return the name set and the prefix of the request metrics in a scrape, which their labels tell from others, or null.

  Those with our help text come first: an application may have some of its own with the same names. */
  function findNaming(text) {
    const namings = [...findNamings(text)];
    const isOurs = ({ set, prefix }) =>
      text.includes(`# HELP ${prefix}${NAME_SETS[set].samples.buckets.replace(/_bucket$/, "")} ${LATENCY_HELP}\n`);
    return namings.find(isOurs) ?? namings[0] ?? null;
  }

  function* findNamings(text) {
    for (const [set, { labels, samples }] of Object.entries(NAME_SETS)) {
      const prefixes = new Set();
      const start = `${samples.requests}{`;
      for (let at = text.indexOf(start); at >= 0; at = text.indexOf(start, at + 1)) {
        const begin = text.lastIndexOf("\n", at) + 1;
        const prefix = text.slice(begin, at);
        const line = text.slice(begin, text.indexOf("\n", at));
        if (!/^[\w:]*$/.test(prefix) || !Object.values(labels).every((label) => line.includes(`${label}="`))) continue;
        if (!prefixes.has(prefix)) yield { set, prefix, samples: samplesOf(set) };
        prefixes.add(prefix);
      }
    }
  }

  /** Everything that the polls have said. */
  class Model {
    constructor() {
      this.range = 300;
      this.routes = new Map();
      this.hosts = new Map(); // those that the application calls: their numbers are of the same kinds as a route's
      this.bounds = []; // those that the latencies of all routes have, which alone can be added up
      this.common = new Map(); // the bounds of a route → the places of the common ones among them
      this.points = []; // one a poll: its time, and what has grown since the one before
      this.resets = []; // times
      this.lag = new Histogram();
      this.loop = new Counters(); // CPU seconds of the loop, by worker
      this.restarts = new Counters(); // of workers, by worker and reason
      this.own = new Counters(); // exceptions and folded requests
      this.cpu = new Counters(); // CPU seconds, by worker
      this.gauges = new Map(); // name → worker → [value]
      this.unwatched = new Set(); // steps in which there was a time without a poll: they have a number, but no shape
      this.firstPoll = null;
      this.processes = null; // the start of the youngest, and how often workers were started again
      this.naming = { set: null, prefix: "" };
      this.python = "";
      this.lastPoll = null;
      this.scrape = new Scrape((name, labels) => this.locate(name, labels));
      this.hasLoopTime = this.hasBytes = this.isReading = this.hasMissed = false;
    }

    /** Return the names to ask for. Until the name set of the request metrics is known, they are those of all sets. */
    names() {
      const { set, prefix } = this.naming;
      const requests = new Set((set ? [set] : Object.keys(NAME_SETS)).flatMap((each) => [...samplesOf(each).keys()]));
      return [
        ...[...requests].map((name) => prefix + name),
        "asyncio_event_loop_lag_seconds_bucket", "asyncio_event_loop_cpu_seconds_total", "asyncio_event_loop_tasks",
        "asyncio_event_loop_blocked_total", "asyncio_event_loop_blocked_seconds_total",
        "client_request_count_total", "client_request_latency_bucket", "client_request_errors_total", "client_requests_in_progress",
        "hr_prometheus_worker_up", "hr_prometheus_worker_restarts_total", "hr_prometheus_errors_total",
        "hr_prometheus_folded_requests_total", "process_start_time_seconds", "process_cpu_seconds_total",
        "process_resident_memory_bytes", "process_open_fds", "python_info",
      ];
    }

    locate(name, labels) {
      const { set, prefix, samples } = this.naming;
      const sample = set && name.startsWith(prefix) ? samples.get(name.slice(prefix.length)) : undefined;
      if (sample) return this.locateRequests(sample, labels);
      const worker = labels.worker ?? "";
      switch (name) {
        case "asyncio_event_loop_blocked_total":
          return this.route(labels).sums.place("blocked");
        case "asyncio_event_loop_blocked_seconds_total":
          return this.route(labels).sums.place("blockedSeconds");
        case "client_request_count_total":
        case "client_request_latency_bucket":
        case "client_request_errors_total":
        case "client_requests_in_progress":
          return this.locateCalls(name, labels);
        case "asyncio_event_loop_lag_seconds_bucket":
          return this.lag;
        case "asyncio_event_loop_cpu_seconds_total":
          return this.loop.place(worker);
        case "hr_prometheus_worker_restarts_total":
          return this.restarts.place(`${worker}\n${labels.reason}`);
        case "hr_prometheus_errors_total":
          return this.own.place(`where=${labels.where}`);
        case "hr_prometheus_folded_requests_total":
          return this.own.place(labels.route);
        case "process_cpu_seconds_total":
          return this.cpu.place(worker);
        case "python_info":
          this.python = `${labels.implementation ?? "Python"} ${labels.version ?? ""}`.trim();
          return null;
        case "asyncio_event_loop_tasks":
        case "hr_prometheus_worker_up":
        case "process_start_time_seconds":
        case "process_resident_memory_bytes":
        case "process_open_fds":
          return [this.gauge(name, worker), 0];
        default:
          return null;
      }
    }

    locateRequests({ kind, labels: names }, labels) {
      const [method, path, status] = [names.method, names.path, names.status].map((name) => labels[name]);
      if (method === undefined || path === undefined || (kind === "requests" && status === undefined)) return null;
      const route = this.route({ method, path, host: labels.host });
      route.isServed = true;
      this.hasBytes ||= kind === "sent" || kind === "received";
      this.hasLoopTime ||= kind === "loop";
      switch (kind) {
        case "requests":
          return route.statuses.place(status);
        case "buckets":
          return route.latencies;
        case "progress":
          return [route.gauges, 0];
        default:
          return route.sums.place(kind);
      }
    }

    locateCalls(name, { client, host, status, reason }) {
      if (client === undefined || host === undefined) return null; // the application's own
      const key = `${client}\n${host}`;
      // The client that most applications have needs no name.
      if (!this.hosts.has(key)) this.hosts.set(key, new Route(client === "default" ? "" : client, host, ""));
      const calls = this.hosts.get(key);
      switch (name) {
        case "client_request_count_total":
          return calls.statuses.place(status ?? "");
        case "client_request_latency_bucket":
          return calls.latencies;
        case "client_request_errors_total":
          return reason === "cancelled" ? null : calls.sums.place("failed"); // which is not the host's failure
        default:
          return [calls.gauges, 0];
      }
    }

    route({ method = "", path = "", host = "" }) {
      const key = `${method}\n${path}\n${host}`;
      let route = this.routes.get(key);
      if (!route) this.routes.set(key, (route = new Route(method, path, host)));
      return route;
    }

    gauge(name, worker) {
      if (!this.gauges.has(name)) this.gauges.set(name, new Map());
      const values = this.gauges.get(name);
      if (!values.has(worker)) values.set(worker, [-0]);
      return values.get(worker);
    }

    /** Return a gauge of each worker that the last scrape had, by worker. */
    ofWorkers(name) {
      const values = [...(this.gauges.get(name) ?? [])].map(([worker, [value]]) => [worker, value]);
      return new Map(values.filter(([, value]) => !Object.is(value, -0)));
    }

    /** Return routes and hosts. */
    all() {
      return [...this.routes.values(), ...this.hosts.values()];
    }

    /** Return the routes that have numbers, which those of an answer that could not be read have not. */
    measured() {
      return [...this.routes.values()].filter((route) => route.windows);
    }

    /** Read the text of a poll that was answered at *time*, in epoch seconds. */
    async read(text, time) {
      const routes = this.all();
      const counters = [this.lag, this.loop, this.restarts, this.own, this.cpu];
      const gauges = [...routes.map((route) => route.gauges), ...[...this.gauges.values()].flatMap((values) => [...values.values()])];
      const before = gauges.map(([value]) => value);
      for (const each of [...routes, ...counters]) each.begin();
      // Whatever is added to -0 is not -0, not even 0. So what is still -0 afterwards was not in the scrape.
      for (const values of this.gauges.values()) for (const value of values.values()) value[0] = -0;
      const namingBefore = this.naming;
      const naming = this.naming.set ? null : findNaming(text);
      if (naming) {
        this.naming = naming;
        this.scrape.forget();
      }
      // The first numbers are nothing that has grown while the page looked, nor are those of names that were not asked for.
      const isFirst = this.lastPoll === null || this.naming.prefix !== namingBefore.prefix;
      this.isReading = true; // until the end there are routes without numbers
      let lines;
      try {
        lines = await this.scrape.read(text);
      } catch (error) {
        gauges.forEach((gauge, index) => (gauge[0] = before[index]));
        this.naming = namingBefore;
        throw error;
      } finally {
        this.isReading = false;
      }
      let isReset = this.hasRestarted();
      if (isReset) for (const each of [...this.all(), ...counters]) each.restart();
      for (const each of counters) each.settle(isFirst);
      const seconds = isFirst ? 0 : time - this.lastPoll;
      const step = Math.floor(time / STEP_S);
      const isGap = isFirst || this.hasMissed || seconds > GAP_S;
      this.hasMissed = false;
      const parts = partsOf(time - seconds, time);
      if (isGap) for (const [back] of parts) this.unwatched.add(step - back);
      for (const old of this.unwatched) if (old <= step - STEPS) this.unwatched.delete(old);
      for (const route of this.all()) {
        if (route.settle(isFirst)) isReset = true;
        route.windows ??= new Windows(route.growth.length, step, this.steps);
        route.windows.advance(step);
        if (route.hasGrown) {
          route.grown = step;
          route.windows.add(route.growth, parts);
        }
      }
      const hasRequests = [...this.routes.values()].some((route) => route.statuses.last.some(Boolean));
      // After a restart there are none until the first request, whose metrics may have other names.
      if (!hasRequests) this.naming = { set: null, prefix: this.naming.prefix };
      this.findCommonBounds(step);
      if (isReset) this.resets.push(time);
      this.addPoint(time, seconds, isGap);
      this.firstPoll ??= time;
      this.lastPoll = time;
      return lines;
    }

    /** Note when the processes of this poll began. Returns whether the server was restarted: each began after those before.

    A worker that is started again goes on with the counters of its predecessor, so such starts are no restart. */
    hasRestarted() {
      const starts = [...this.ofWorkers("process_start_time_seconds").values()];
      if (!starts.length) return false;
      const restarts = this.restarts.next.reduce((sum, number) => sum + number, 0);
      const before = this.processes;
      this.processes = { youngest: Math.max(...starts), restarts };
      // A start is computed from the system's clock, which may have been set a little meanwhile.
      return before !== null && Math.min(...starts) > before.youngest + 1 && restarts <= before.restarts;
    }

    /** Find the bounds of all latencies that are added up: of those in the scrape, and of those that the windows still have. */
    findCommonBounds(step) {
      const routes = [...this.routes.values()].filter((route) => route.latencies.series || route.grown > step - STEPS);
      const all = [...new Set(routes.map((route) => route.bounds))].filter((bounds) => bounds.length);
      const common = all.length ? all.reduce((some, others) => some.filter((bound) => others.includes(bound))) : [];
      if (String(common) !== String(this.bounds)) {
        const places = common.map((bound) => this.bounds.indexOf(bound));
        for (const point of this.points) {
          // A point has the buckets of fewer bounds, but none of others.
          if (point.buckets) point.buckets = places.includes(-1) ? null : Float64Array.from(places, (place) => point.buckets[place]);
        }
        this.bounds = common;
      }
      this.common = new Map(all.map((bounds) => [bounds, common.map((bound) => bounds.indexOf(bound))]));
    }

    /** Add the buckets of a route, of its growth or of its sums, to others: those of the bounds that all routes have. */
    addBuckets(buckets, route, numbers) {
      this.common.get(route.bounds)?.forEach((place, index) => (buckets[index] += numbers[BUCKETS + place]));
    }

    addPoint(time, seconds, isGap) {
      const counts = new Float64Array(CLASSES.length);
      const buckets = new Float64Array(this.bounds.length);
      let inProgress = 0;
      for (const route of this.routes.values()) {
        inProgress += route.gauges[0];
        if (!route.hasGrown) continue;
        for (let index = 0; index < counts.length; index++) counts[index] += route.growth[index];
        this.addBuckets(buckets, route, route.growth);
      }
      // In the charts a line ends here. It is never the last point, from which the numbers of now are drawn.
      if (isGap && this.points.length) this.points.push({ time: this.lastPoll, seconds: 0, rates: null, quantiles: null });
      const sum = (values) => values.reduce((total, value) => total + value, 0);
      this.points.push({
        time, seconds, counts, buckets, inProgress,
        lag: Float64Array.from(this.lag.places, (place) => this.lag.growth[place]),
        // Where all workers share one series, it is the sum of their loops.
        loop: sum(this.loop.growth) / Math.max(1, this.loop.keys.length, this.ofWorkers("hr_prometheus_worker_up").size),
        tasks: sum([...this.ofWorkers("asyncio_event_loop_tasks").values()]),
        isGap,
      });
      this.smooth(this.points[this.points.length - 1]);
      while (this.points[0].time < time - KEEP_S - NOW_S) this.points.shift();
      this.resets = this.resets.filter((each) => each >= time - KEEP_S);
    }

    /** Give a point its rates and quantiles over the last seconds, which do not reach back over a gap. */
    smooth(point) {
      const counts = new Float64Array(CLASSES.length);
      const buckets = new Float64Array(this.bounds.length);
      const lag = new Float64Array(this.lag.bounds.length);
      let seconds = 0;
      let loop = 0;
      for (let index = this.points.length - 1; index >= 0; index--) {
        const each = this.points[index];
        if (each.isGap || (seconds && seconds + each.seconds > NOW_S + 0.5)) break;
        seconds += each.seconds;
        loop += each.loop;
        each.counts.forEach((value, place) => (counts[place] += value));
        each.buckets?.forEach((value, place) => (buckets[place] += value));
        if (each.lag.length === lag.length) each.lag.forEach((value, place) => (lag[place] += value));
      }
      point.rates = Array.from(counts, (value) => (seconds ? value / seconds : null));
      point.quantiles = QUANTILES.map(({ q }) => quantile(q, buckets, this.bounds));
      point.lagQuantiles = [0.5, 0.99].map((q) => quantile(q, lag, this.lag.bounds));
      point.utilisation = seconds && this.loop.keys.length ? loop / seconds : null;
    }

    /** Note that there was no answer, so that the charts have a gap before the next one. */
    miss() {
      this.hasMissed = true;
    }

    /** Whether the page has looked all the time in a step, so that its numbers have their place. */
    isWatched(step) {
      return step >= Math.floor(this.firstPoll / STEP_S) && !this.unwatched.has(step);
    }

    get steps() {
      return Math.round(this.range / STEP_S);
    }

    setRange(range) {
      this.range = range;
      for (const route of this.all()) route.windows?.resize(this.steps);
    }

    /** Return the seconds that the windows cover: fewer than the range while the page is young. */
    covered() {
      if (this.lastPoll === null) return 0;
      const begin = (Math.floor(this.lastPoll / STEP_S) - this.steps + 1) * STEP_S;
      return Math.max(this.lastPoll - Math.max(begin, this.firstPoll), 0.001);
    }

    /** Return the points of the time range. */
    shown() {
      const [begin] = this.axis();
      return this.points.filter((point) => point.time >= begin);
    }

    /** Return the bounds of the axis of time. While the page is young it has no room for what has not been seen. */
    axis() {
      const age = this.lastPoll - this.firstPoll;
      return [this.lastPoll - Math.min(this.range, Math.max(age, YOUNG_S)), this.lastPoll];
    }
  }

  // -- the document

  const byId = (id) => document.getElementById(id);

  /** Make an element. Children are elements or text, never HTML. */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value != null) element.setAttribute(name, value);
    element.append(...children.filter((child) => child != null));
    return element;
  }

  /** Set an element's text, if it is another one: the document is not touched for what stays. */
  function write(element, text) {
    if (element.written !== text) element.textContent = element.written = text;
  }

  function mark(element, name, isSo) {
    if (element.classList.contains(name) !== isSo) element.classList.toggle(name, isSo);
  }

  const colours = new Map();
  /** Return a colour of the style sheet, which has one for light and one for dark. */
  function colour(name) {
    if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return colours.get(name);
  }

  const charts = new Set();

  /** A chart with its title, and a legend with the numbers of now or of the moment under the pointer. */
  class Chart {
    constructor(parent, { title, unit, series, isLogarithmic = false, height = 170, hasLegend = true }) {
      this.series = series;
      this.times = [0, 1];
      this.resets = [];
      this.legend = make("ul", { class: "legend" });
      this.values = series.map((each) => {
        const value = make("b", {}, "–");
        const swatch = make("canvas", { width: 32, height: 20, "aria-hidden": "true" });
        const item = make("li", {}, swatch, make("span", {}, each.label), value);
        if (hasLegend) this.legend.append(item);
        return { item, value, swatch };
      });
      this.heading = make("h3", {}, title, make("span", { class: "unit" }, unit ? `, ${unit}` : ""));
      this.plot = make("div", { class: "plot" });
      this.plot.style.height = `${height}px`;
      this.figure = make("figure", { class: "chart" }, make("figcaption", {}, this.heading, this.legend), this.plot);
      parent.append(this.figure);
      const axis = { stroke: () => colour("--quiet"), font: "11px system-ui, sans-serif", ticks: { show: false }, gap: 4 };
      const grid = { stroke: () => colour("--grid"), width: 1 };
      this.u = new uPlot(
        {
          width: 300,
          height,
          legend: { show: false },
          padding: [8, 24, 0, 0], // room for half of the last time
          cursor: { sync: { key: "status", setSeries: false }, y: false, drag: { x: false, y: false }, points: { show: false } },
          scales: {
            x: { time: true, range: () => this.times },
            y: { distr: isLogarithmic ? 3 : 1, range: (_, low, high) => this.range(low, high) },
          },
          axes: [
            { ...axis, size: 22, grid: { show: false }, space: 70, values: (_, times) => times.map((time) => clock.format(time * 1000).slice(0, this.isLong ? 5 : 8)) },
            {
              ...axis, size: 58, grid, space: 26, ...(this.splits ? { splits: () => this.splits() } : {}),
              values: (_, values) => values.map((value) => (value == null ? "" : this.tick(value))),
            },
          ],
          series: [{}, ...series.map((each) => this.line(each))],
          hooks: { draw: [(u) => this.draw(u), (u) => this.drawResets(u)], setCursor: [() => this.writeLegend()] },
        },
        [[], ...series.map(() => [])],
        this.plot,
      );
      this.observer = new ResizeObserver(([entry]) => {
        const width = Math.floor(entry.contentRect.width);
        if (width > 0 && width !== this.u.width) this.u.setSize({ width, height });
      });
      this.observer.observe(this.plot);
      charts.add(this);
      this.drawSwatches();
    }

    /** Return how a number is shown in the legend. */
    show(value) {
      return value == null ? "–" : showCount(value);
    }

    /** Return how a number is shown on the axis. */
    tick(value) {
      return this.show(value);
    }

    /** Return the bounds of the axis of numbers that lie between *low* and *high*, which are null without numbers. */
    range(_low, high) {
      return [0, Math.max(4, high * 1.15)];
    }

    draw() {}

    line(each) {
      const stroke = () => colour(each.colour);
      const bars = { points: { show: false }, spanGaps: false };
      if (each.isHidden) return { ...bars, paths: () => null };
      if (each.fill) return { ...bars, width: 0, stroke, fill: stroke };
      return { ...bars, width: 1.6, stroke, dash: each.dash };
    }

    drawSwatches() {
      this.series.forEach((each, index) => {
        const context = this.values[index].swatch.getContext("2d");
        context.clearRect(0, 0, 32, 20);
        context.fillStyle = context.strokeStyle = colour(each.colour);
        context.lineWidth = 4;
        if (each.fill) return context.fillRect(0, 2, 32, 16);
        context.setLineDash((each.dash ?? []).map((length) => length * 1.6));
        context.beginPath();
        context.moveTo(0, 10);
        context.lineTo(32, 10);
        context.stroke();
      });
    }

    /** Draw *data*: the times and a row of numbers for each series. *numbers* are what the legend shows of them. */
    set(times, data, { range, resets = [], numbers = data }) {
      this.times = range;
      this.isLong = range[1] - range[0] > 180;
      this.resets = resets;
      this.numbers = numbers;
      this.u.setData([times, ...data]);
      this.writeLegend();
    }

    writeLegend() {
      const index = this.u?.cursor.idx ?? (this.numbers?.[0]?.length ?? 0) - 1;
      this.values.forEach(({ item, value }, place) => {
        const number = this.numbers?.[place]?.[index];
        write(value, this.show(number ?? null));
        mark(item, "zero", !number);
      });
    }

    drawResets(u) {
      for (const time of this.resets) {
        const x = Math.round(u.valToPos(time, "x", true));
        if (x < u.bbox.left) continue;
        u.ctx.save();
        u.ctx.strokeStyle = colour("--quiet");
        u.ctx.setLineDash([3, 3]);
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
        u.ctx.restore();
      }
    }

    recolour() {
      this.drawSwatches();
      this.u.redraw(false, true);
    }

    remove() {
      this.observer.disconnect();
      this.u.destroy();
      this.figure.remove();
      charts.delete(this);
    }
  }

  /** Requests by class, stacked. The order of drawing is from the highest sum down, each over the one before. */
  class StatusChart extends Chart {
    constructor(parent, title, height) {
      const series = [...CLASSES].reverse().map(({ name, label }) => ({ label, colour: `--class-${name}`, fill: true }));
      super(parent, { title, unit: "per second", series, height });
    }

    show(value) {
      return showNumber(value);
    }

    tick(value) {
      return showCount(value);
    }

    range(_low, high) {
      return [0, high > 0 ? high * 1.1 : 1];
    }

    /** *rates* has for each time the rates by class, or null. */
    setRates(times, rates, options) {
      const numbers = CLASSES.map((_, index) => rates.map((each) => each?.[index] ?? null));
      const sums = CLASSES.map(() => new Array(times.length));
      rates.forEach((each, place) => {
        let sum = 0;
        CLASSES.forEach((_, index) => {
          if (each != null && each[index] != null) sum += each[index];
          sums[index][place] = each == null || each[index] == null ? null : sum;
        });
      });
      numbers.reverse();
      // What there was none of takes no room in the legend, but for the classes that everybody looks for.
      this.values.forEach(({ item }, index) => (item.hidden = !/^[25]/.test(this.series[index].label) && !numbers[index].some(Boolean)));
      this.set(times, sums.reverse(), { ...options, numbers });
    }
  }

  class QuantileChart extends Chart {
    constructor(parent, title, { height, unit, names = QUANTILES } = {}) {
      const series = names.map(({ name, dash }) => ({ label: name, colour: `--${name}`, dash }));
      super(parent, { title, unit, series, height, isLogarithmic: true });
    }

    show(value) {
      return showSeconds(value, this.bounds);
    }

    tick(value) {
      return showTick(value);
    }

    /** Whole decades: so the axis is calm, and a height means the same from second to second. */
    range(low, high) {
      if (!(low > 0)) return [0.001, 1];
      const decade = Math.floor(Math.log10(low) + 1e-9);
      return [10 ** decade, 10 ** Math.max(decade + 1, Math.ceil(Math.log10(high) - 1e-9))];
    }

    splits() {
      const { min, max } = this.u.scales.y;
      const decades = Math.round(Math.log10(max / min)) + 1;
      return Array.from({ length: decades }, (_, index) => Number((min * 10 ** index).toPrecision(1)));
    }

    setQuantiles(times, quantiles, bounds, options) {
      this.bounds = bounds;
      const top = lastOf(bounds) ?? 1;
      const numbers = this.series.map((_, index) => quantiles.map((each) => each?.[index] ?? null));
      const data = numbers.map((row) => row.map((value) => (value === Infinity ? top : value > 0 ? value : null)));
      this.set(times, data, { ...options, numbers });
    }
  }

  class ShareChart extends Chart {
    show(value) {
      return showShare(value);
    }

    range(_low, high) {
      return [0, Math.max(1, high)];
    }
  }

  /** How many requests took how long: columns of time, rows of buckets; the darker the more. */
  class Heatmap extends Chart {
    constructor(parent) {
      super(parent, {
        title: "Latencies of all requests", unit: "darker: more requests", hasLegend: false,
        series: [{ label: "requests", colour: "--p95", isHidden: true }],
      });
    }

    range() {
      return [0, Math.max(1, this.bounds?.length ?? 1)];
    }

    /** Return the upper bound of a row. */
    show(row) {
      if (row == null) return "–";
      const bound = this.bounds?.[row - 1];
      return row === 0 ? "0" : bound === undefined ? "" : bound === Infinity ? "∞" : showTick(bound);
    }

    /** Return the rows whose upper bounds the axis names: as many as have room. */
    splits() {
      const count = this.bounds?.length ?? 0;
      const each = Math.max(1, Math.ceil(count / 8));
      return Array.from({ length: Math.floor(count / each) + 1 }, (_, index) => index * each);
    }

    setPoints(points, bounds, options) {
      this.points = points;
      this.bounds = bounds;
      this.set(points.map((point) => point.time), [points.map(() => null)], options);
    }

    draw(u) {
      const { points, bounds } = this;
      if (!points?.length || !(bounds?.length > 1)) return; // where all are below infinity, there is nothing to see
      const { left, width } = u.bbox;
      const columns = Math.max(20, Math.min(120, Math.floor(width / devicePixelRatio / 6)));
      const [begin, end] = this.times;
      // Columns stand still in time, so that they move as a whole and do not flicker.
      const seconds = Math.max(1, (end - begin) / columns);
      const cells = new Map();
      let most = 0;
      for (const { time, buckets, isGap } of points) {
        if (!buckets || isGap) continue; // that all would seem to have happened at its end
        const column = Math.floor(time / seconds);
        for (let row = 0; row < bounds.length; row++) {
          const count = buckets[row] - (row ? buckets[row - 1] : 0);
          if (count <= 0) continue;
          const key = column * 1000 + row;
          const sum = (cells.get(key) ?? 0) + count;
          cells.set(key, sum);
          if (sum > most) most = sum;
        }
      }
      const { ctx } = u;
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, u.bbox.top, width, u.bbox.height);
      ctx.clip();
      for (const [key, count] of cells) {
        const column = Math.floor(key / 1000);
        const row = key % 1000;
        const x = u.valToPos(column * seconds, "x", true);
        const right = u.valToPos((column + 1) * seconds, "x", true);
        const y = u.valToPos(row + 1, "y", true);
        const bottom = u.valToPos(row, "y", true);
        const strength = 0.12 + 0.88 * (Math.log1p(count) / Math.log1p(most));
        ctx.fillStyle = `rgba(${colour("--heat")}, ${strength.toFixed(3)})`;
        ctx.fillRect(Math.round(x), Math.round(y), Math.max(1, Math.round(right) - Math.round(x) - 1), Math.max(1, Math.round(bottom) - Math.round(y) - 1));
      }
      ctx.restore();
    }
  }

  // -- the parts of the page

  const model = new Model();
  let config = { version: "", target: "", metrics: "" };

  /** The large numbers: what is now, and below it what was over the time range. */
  class Tiles {
    constructor() {
      this.tiles = new Map();
    }

    set(name, now, unit, then, isBad = false) {
      let tile = this.tiles.get(name);
      if (!tile) {
        const element = make("div", { class: "tile", "data-tile": name });
        tile = { element, now: make("span"), unit: make("small"), then: make("dd", { class: "then" }) };
        element.append(make("dt", {}, name), make("dd", { class: "now" }, tile.now, tile.unit), tile.then);
        byId("tiles").append(element);
        this.tiles.set(name, tile);
      }
      write(tile.now, now);
      write(tile.unit, unit);
      write(tile.then, then);
      mark(tile.element, "bad", isBad);
    }

    draw(total) {
      const point = model.points[model.points.length - 1];
      const { rates, quantiles } = point;
      const all = rates.reduce((sum, rate) => sum + (rate ?? 0), 0);
      const share = (rate) => (all ? rate / all : rate === null ? null : 0);
      const range = span();
      const average = (count) => `${range}: ${showNumber(count / model.covered())}/s`;
      this.set("Requests", showNumber(rates[0] === null ? null : all), "/s", average(total.count));
      const over = (index) => `${range}: ${showShare(total.count ? total.counts[index] / total.count : null)}`;
      this.set("Errors, 5xx", showShare(share(rates[C5XX])), "", over(C5XX), rates[C5XX] > 0);
      this.set("Client left, 499", showShare(share(rates[C499])), "", over(C499));
      this.set("Refused, 4xx", showShare(share(rates[C4XX])), "", over(C4XX));
      const latency = (value) => showSeconds(value, model.bounds).split(/ (?=\D+$)/);
      QUANTILES.forEach(({ name, q }, index) => {
        const [number, unit = ""] = latency(quantiles[index]);
        this.set(`Latency, ${name}`, number, unit, `${range}: ${showSeconds(quantile(q, total.buckets, model.bounds), model.bounds)}`);
      });
      const most = Math.max(0, ...model.shown().map((each) => each.inProgress ?? 0));
      this.set("In progress", showCount(point.inProgress), "", `${range}: max ${showCount(most)}`);
    }
  }

  /** Return the time that the numbers are of: less than the range while the page is young. */
  function span() {
    if (model.lastPoll - model.firstPoll >= model.range - STEP_S) return `${model.range / 60} min`;
    const seconds = Math.round(model.covered());
    return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min`;
  }

  /** The routes that fail and those that are slow: what a person looks for first. */
  class Attention {
    constructor() {
      this.lists = new Map();
      for (const [name, title] of [["failing", "Failing most"], ["slow", `Slowest, of routes with ${LEAST_REQUESTS} requests or more`]]) {
        const list = make("ul", { class: name });
        this.lists.set(name, list);
        byId("attention").append(make("div", { class: "card" }, make("h3", {}, title), list));
      }
    }

    draw(routes) {
      const failing = best(routes, (route) => (route.windows.sum[C5XX] >= 0.5 ? route.windows.sum[C5XX] : null));
      this.write("failing", failing, !model.naming.set ? "No metrics of requests are seen." : "No route has answered with a 5xx.", (route) => [
        `${showShare(route.share(C5XX))} 5xx`,
        `${grouped.format(route.windows.sum[C5XX])} of ${grouped.format(route.count())}`,
      ]);
      const p95 = (route) => (route.count() >= LEAST_REQUESTS ? route.quantile(0.95) : null);
      const slowest = best(routes, p95);
      // What takes less than a tenth of the slowest is not what is looked for, and would change from second to second.
      const slow = slowest.filter((route) => finite(p95(route), lastOf(route.bounds)) >= finite(p95(slowest[0]), lastOf(slowest[0].bounds)) / 10);
      this.write("slow", slow, `No route has had ${LEAST_REQUESTS} requests yet.`, (route) => [
        `p95 ${showSeconds(route.quantile(0.95), route.bounds)}`,
        `p50 ${showSeconds(route.quantile(0.5), route.bounds)}`,
      ]);
    }

    write(name, routes, none, describe) {
      const list = this.lists.get(name);
      const items = routes.map((route) => [route, ...describe(route)]);
      const text = items.map(([route, ...words]) => `${route.words} ${words}`).join("\n") || none;
      if (list.written === text) return;
      list.written = text;
      const hadFocus = list.contains(document.activeElement) ? document.activeElement.route : null;
      list.replaceChildren(
        ...items.map(([route, value, more]) => {
          const button = make("button", { type: "button", title: `${route.label}: show its details` }, ...labelOf(route));
          button.route = route;
          button.addEventListener("click", () => table.reveal(route));
          return make("li", {}, button, make("span", { class: "value" }, value, make("small", {}, ` ${more}`)));
        }),
        ...(items.length ? [] : [make("li", { class: "none" }, none)]),
      );
      if (hadFocus) [...list.querySelectorAll("button")].find(({ route }) => route === hadFocus)?.focus();
    }
  }

  /** Return the three routes with the greatest values, of those that have one. */
  function best(routes, valueOf) {
    const top = [];
    for (const route of routes) {
      const value = valueOf(route);
      if (value === null || (top.length === 3 && value <= top[2].value)) continue;
      top.push({ route, value });
      top.sort((one, other) => (other.value > one.value) - (other.value < one.value));
      top.length = Math.min(top.length, 3);
    }
    return top.map(({ route }) => route);
  }

  // The columns of the table of routes. The class says on how narrow a screen a column still is.
  const perSecond = (value) => value / model.covered();
  const shareColumn = (name, index, title, more = {}) => ({
    name, title, of: (route) => route.share(index), show: showShare, isZero: (value) => !value, ...more,
  });
  const quantileColumn = (name, q, more = {}) => ({
    name, title: `Time within which ${q * 100} % of the requests were answered`,
    of: (route) => route.quantile(q), show: (value, route) => showSeconds(value, route.bounds), ...more,
  });
  const COLUMNS = [
    { name: "route", label: "Route", title: "Method and route label", of: (route) => `${route.path} ${route.method}`, isText: true },
    { name: "rate", label: "Req/s", title: "Requests per second", of: (route) => perSecond(route.count()), show: showNumber, isZero: (value) => !value },
    shareColumn("5xx", C5XX, "Share of answers with status 5xx", { marks: "bad" }),
    shareColumn("4xx", C4XX, "Share of answers with status 4xx, without 499", { class: "wide-1" }),
    shareColumn("499", C499, "Share of requests whose client left before the end of the answer", { class: "wide-1" }),
    quantileColumn("p50", 0.5, { class: "wide-1" }),
    quantileColumn("p95", 0.95, { hasBar: true }),
    quantileColumn("p99", 0.99, { class: "wide-2" }),
    { name: "progress", label: "In progress", title: "Requests in progress now", of: (route) => route.gauges[0], show: showCount, isZero: (value) => !value, class: "wide-1" },
    { name: "sent", label: "Sent/s", title: "Bytes of response bodies per second", of: (route) => perSecond(route.windows.sum[SUM.sent]), show: showBytes, isZero: (value) => !value, class: "wide-3", isShown: () => model.hasBytes },
    { name: "loop", label: "Loop", title: "Share of the time for which its requests have held the event loop", of: (route) => perSecond(route.windows.sum[SUM.loop]), show: showShare, isZero: (value) => !value, class: "wide-2", isShown: () => model.hasLoopTime },
    { name: "trend", label: "Trend", title: "Requests over the time range; below the line those with status 5xx. No line: the page had no answer", isSparkline: true, class: "wide-1" },
  ];

  class Table {
    constructor() {
      this.sort = { name: "rate", descending: true };
      this.filter = "";
      this.limit = PAGE_ROWS;
      this.open = null;
      this.details = null;
      this.order = [];
      this.body = document.querySelector("#table tbody");
      this.columns = [];
      byId("filter").addEventListener("input", (event) => {
        this.filter = event.target.value.toLowerCase();
        this.limit = PAGE_ROWS;
        this.draw(true);
      });
      byId("more").addEventListener("click", () => {
        this.limit += PAGE_ROWS;
        this.draw();
      });
    }

    makeHeader(columns) {
      this.columns = columns;
      const row = document.querySelector("#table thead tr");
      row.replaceChildren(
        ...columns.map((column) => {
          const label = column.label ?? column.name;
          if (column.isSparkline) return make("th", { scope: "col", class: column.class, title: column.title }, label);
          const button = make("button", { type: "button", title: `${column.title}. Sort by it.` }, label);
          button.addEventListener("click", () => this.sortBy(column));
          return make("th", { scope: "col", class: column.class, "data-column": column.name }, button);
        }),
      );
      for (const route of model.routes.values()) route.row = null;
      this.body.replaceChildren();
      this.close();
      this.writeSort();
    }

    sortBy(column) {
      const isSame = this.sort.name === column.name;
      this.sort = { name: column.name, descending: isSame ? !this.sort.descending : !column.isText };
      this.writeSort();
      this.draw(true);
    }

    writeSort() {
      for (const header of document.querySelectorAll("#table th[data-column]")) {
        if (header.dataset.column === this.sort.name) header.setAttribute("aria-sort", this.sort.descending ? "descending" : "ascending");
        else header.removeAttribute("aria-sort");
      }
    }

    /** Show a route's details, wherever the table is. */
    reveal(route) {
      byId("filter").value = this.filter = "";
      this.show(route);
      this.draw(true);
      const row = route.row.element;
      row.scrollIntoView({ block: "center" });
      route.row.button.focus({ preventScroll: true });
    }

    show(route) {
      this.close();
      this.open = route;
      this.details = new Details(route, this.columns.length);
    }

    close() {
      this.details?.remove();
      this.open?.row?.button.setAttribute("aria-expanded", "false");
      this.open?.row?.element.classList.remove("open");
      this.open = this.details = null;
    }

    draw(mustSort = false) {
      const columns = COLUMNS.filter((column) => column.isShown?.() ?? true);
      if (columns.length !== this.columns.length) this.makeHeader(columns);
      this.sortRoutes(mustSort);
      const shown = this.order.slice(0, this.limit);
      // A route whose details are shown stays in the table, wherever its numbers put it.
      if (this.open && !shown.includes(this.open) && this.order.includes(this.open)) shown.push(this.open);
      const slowest = Math.max(...shown.map((route) => finite(route.quantile(0.95))));
      const wanted = [];
      for (const route of shown) {
        route.row ??= this.makeRow(route);
        this.writeRow(route, slowest);
        wanted.push(route.row.element);
        if (route === this.open) wanted.push(this.details.element);
      }
      if (this.open && !shown.includes(this.open)) this.close();
      this.place(wanted);
      this.details?.draw();
      const { all } = this;
      const more = this.order.length - this.limit;
      write(byId("routes-count"), this.filter ? `${grouped.format(this.order.length)} of ${grouped.format(all)}` : all ? `${grouped.format(all)}, over ${span()}` : "");
      byId("more").hidden = more <= 0;
      write(byId("more"), `Show ${Math.min(more, PAGE_ROWS)} more of ${grouped.format(this.order.length)}`);
      byId("empty").hidden = this.order.length > 0;
      write(byId("empty"), all ? "No route has these words." : !model.naming.set ? NO_REQUESTS : "No request has been recorded yet.");
    }

    sortRoutes(mustSort) {
      const words = this.filter.split(/\s+/).filter(Boolean);
      const served = model.measured().filter((route) => route.isServed);
      const routes = served.filter((route) => words.every((word) => route.words.includes(word)));
      this.all = served.length;
      // Rows do not move away under the pointer or the keyboard.
      const isUsed = this.body.matches(":hover") || this.body.contains(document.activeElement);
      if (isUsed && !mustSort && routes.length === this.order.length) return;
      const column = this.columns.find(({ name }) => name === this.sort.name) ?? this.columns[1];
      const sign = this.sort.descending ? -1 : 1;
      const keyed = routes.map((route) => ({ route, key: column.of(route) }));
      keyed.sort((one, other) => {
        if (column.isText) return sign * one.key.localeCompare(other.key);
        // Those without a number come last, whatever the direction.
        const [left, right] = [one.key ?? sign * Infinity, other.key ?? sign * Infinity];
        if (left === right) return one.route.words < other.route.words ? -1 : 1;
        return sign * (left < right ? -1 : 1);
      });
      this.order = keyed.map(({ route }) => route);
    }

    makeRow(route) {
      const button = make("button", { type: "button", class: "route", "aria-expanded": "false", title: route.label }, ...labelOf(route));
      const cells = this.columns.map((column) => {
        if (column.isText) return make("td", {}, button);
        const cell = make("td", { class: column.class, "data-column": column.name });
        if (column.isSparkline) cell.append(make("canvas", { class: "spark", width: 240, height: 40, "aria-hidden": "true" }));
        if (column.hasBar) {
          cell.classList.add("long");
          cell.append(make("span"), make("i", { "aria-hidden": "true" }));
        }
        return cell;
      });
      const element = make("tr", { "data-route": `${route.method} ${route.path}` }, ...cells);
      button.addEventListener("click", () => {
        if (this.open === route) this.close();
        else this.show(route);
        this.draw();
      });
      return { element, button, cells, bar: null, spark: "" };
    }

    writeRow(route, slowest) {
      const { row } = route;
      this.columns.forEach((column, index) => {
        const cell = row.cells[index];
        if (column.isText) return;
        if (column.isSparkline) return this.drawSparkline(route, cell.firstChild);
        const value = column.of(route);
        write(column.hasBar ? cell.firstChild : cell, column.isZero?.(value) ? (value === 0 ? "0" : "–") : column.show(value, route));
        mark(cell, "zero", value == null || (column.isZero?.(value) ?? false));
        if (column.marks) mark(cell, column.marks, value > 0);
        if (column.hasBar) {
          const width = slowest > 0 && value ? Math.round((100 * finite(value, slowest)) / slowest) : 0;
          if (row.bar !== width) cell.lastChild.style.width = `calc(${(row.bar = width)}% - 0.8rem)`;
        }
      });
      const isOpen = route === this.open;
      if (isOpen) row.button.setAttribute("aria-expanded", "true");
      mark(row.element, "open", isOpen);
    }

    /** Put the rows into their order, and move only those that are not in their place. */
    place(wanted) {
      let next = this.body.firstChild;
      for (const element of wanted) {
        if (element === next) next = next.nextSibling;
        else this.body.insertBefore(element, next);
      }
      while (next) {
        const after = next.nextSibling;
        next.remove();
        next = after;
      }
    }

    drawSparkline(route, canvas) {
      const { windows } = route;
      const [begin, end] = model.axis();
      const steps = Math.round((end - begin) / STEP_S);
      const key = `${steps} ${windows.now} ${windows.ago(0)?.reduce((sum, value) => sum + value, 0) ?? 0} ${colour("--class-2xx")}`;
      if (route.row.spark === key) return;
      route.row.spark = key;
      const context = canvas.getContext("2d");
      const { width, height } = canvas;
      context.clearRect(0, 0, width, height);
      const totals = [];
      const failed = [];
      for (let back = steps - 1; back >= 0; back--) {
        const isWatched = model.isWatched(windows.now - back);
        const step = isWatched ? windows.ago(back) : null;
        let total = 0;
        for (let index = 0; step && index < CLASSES.length; index++) total += step[index];
        totals.push(isWatched ? total : null);
        failed.push(step ? step[C5XX] : 0);
      }
      const most = Math.max(...totals);
      const base = height - 8; // below it are the failures, so that one among many is seen
      const bar = width / steps;
      const room = bar > 3 ? 1 : 0;
      context.fillStyle = colour("--line"); // so that a time without requests is not one without answers to the page
      totals.forEach((total, index) => total !== null && context.fillRect(index * bar, base - 2, bar, 2));
      context.fillStyle = colour("--class-2xx");
      totals.forEach((total, index) => {
        if (total) context.fillRect(index * bar, base - Math.max(2, (base * total) / most), bar - room, Math.max(2, (base * total) / most));
      });
      context.fillStyle = colour("--class-5xx");
      failed.forEach((count, index) => count && context.fillRect(index * bar, base + 2, Math.max(2, bar - room), 6));
    }
  }

  /** Return a path in pieces between which a line may break. */
  const breakable = (path) => path.split(/(?<=.\/)/).flatMap((piece) => [piece, make("wbr")]);

  /** Return the parts of a route's label. */
  const labelOf = (route) => [
    make("span", { class: "method" }, route.method), make("span", { class: "path" }, ...breakable(route.path)),
    route.host ? make("span", { class: "host" }, route.host) : null,
  ];

  const finite = (value, instead = 0) => (Number.isFinite(value) ? value : instead);

  /** What is shown of one route below its row. */
  class Details {
    constructor(route, columns) {
      this.route = route;
      const grid = make("div", { class: "charts" });
      this.numbers = make("dl");
      this.statuses = make("dl", { class: "statuses", "aria-label": "Answers since the start, by status" });
      const cell = make("td", { colspan: columns }, make("p", { class: "label" }, route.label), grid, this.numbers, this.statuses);
      this.element = make("tr", { class: "details" }, cell);
      this.rates = new StatusChart(grid, "Requests", 130);
      this.latencies = new QuantileChart(grid, "Latency", { height: 130 });
    }

    draw() {
      const { route } = this;
      const { windows } = route;
      const times = [];
      const rates = [];
      const quantiles = [];
      // Without the step that goes on, whose rates would be of too few seconds.
      for (let back = model.steps - 1; back >= 1; back--) {
        const number = windows.now - back;
        times.push((number + 1) * STEP_S);
        const step = windows.ago(back);
        const isWatched = model.isWatched(number);
        rates.push(isWatched ? CLASSES.map((_, index) => (step ? step[index] / STEP_S : 0)) : null);
        quantiles.push(step && isWatched ? QUANTILES.map(({ q }) => quantile(q, step, route.bounds, BUCKETS)) : null);
      }
      const options = { range: model.axis(), resets: model.resets };
      this.rates.setRates(times, rates, options);
      this.latencies.setQuantiles(times, quantiles, route.bounds, options);
      this.writeNumbers();
    }

    writeNumbers() {
      const { route } = this;
      const { sum } = route.windows;
      const count = route.count();
      const observed = route.bounds.length ? sum[BUCKETS + route.bounds.length - 1] : 0;
      const mean = (total, number) => (number ? total / number : null);
      list(this.numbers, [
        ["Requests", grouped.format(count)],
        ...CLASSES.map(({ label }, index) => [label, sum[index] ? `${grouped.format(sum[index])} (${showShare(sum[index] / count)})` : null]),
        ["Mean latency", showSeconds(mean(sum[SUM.latency], observed))],
        ...QUANTILES.map(({ name, q }) => [name, showSeconds(route.quantile(q), route.bounds)]),
        ["In progress", showCount(route.gauges[0])],
        ["Sent", model.hasBytes && count ? `${showBytes(mean(sum[SUM.sent], count))} a request, ${showBytes(perSecond(sum[SUM.sent]))}/s` : null],
        ["Received", model.hasBytes && count ? `${showBytes(mean(sum[SUM.received], count))} a request` : null],
        ["Event loop", model.hasLoopTime && count ? `${showSeconds(mean(sum[SUM.loop], count))} a request, ${showShare(perSecond(sum[SUM.loop]))} of the time` : null],
        ["Blocked the loop", sum[SUM.blocked] ? `${grouped.format(sum[SUM.blocked])} times, ${showSeconds(sum[SUM.blockedSeconds])}` : null],
      ]);
      const statuses = route.statuses.keys.map((status, index) => [status, route.statuses.last[index]]).filter(([, number]) => number);
      statuses.sort();
      list(this.statuses, [["Since the start", ""], ...statuses.map(([status, number]) => [status, grouped.format(number)])]);
    }

    remove() {
      this.rates.remove();
      this.latencies.remove();
      this.element.remove();
    }
  }

  /** Write pairs of a term and its text into a list; those without a text are left out. */
  function list(element, pairs) {
    const shown = pairs.filter(([, text]) => text !== null);
    const text = shown.join("\n");
    if (element.written === text) return;
    element.written = text;
    element.replaceChildren(...shown.map(([term, each]) => make("div", {}, make("dt", {}, term), make("dd", {}, each))));
  }

  /** Write a table's rows of texts. A cell may be a text, or a text, its class and its title. */
  function rows(section, columns, cells) {
    const text = JSON.stringify([columns, cells]);
    if (section.written === text) return;
    section.written = text;
    section.querySelector("thead tr").replaceChildren(...columns.map((column) => make("th", { scope: "col" }, column)));
    section.querySelector("tbody").replaceChildren(
      ...cells.map(([name, ...values]) => make("tr", {}, make("td", { title: name }, make("span", { class: "cut" }, ...breakable(name))), ...values.map(makeCell))),
    );
  }

  function makeCell(cell) {
    const [text, name, title] = [cell].flat();
    return make("td", { class: name, title }, text);
  }

  class LoopSection {
    draw(options, points, times) {
      const section = byId("loop");
      const isShown = model.lag.bounds.length > 0 || model.loop.keys.length > 0;
      section.hidden = !isShown;
      if (!isShown) return;
      if (!this.lag) this.make(section);
      const blocked = model.measured().filter((route) => route.windows.sum[SUM.blocked] > 0);
      this.lag.setQuantiles(times, points.map((point) => point.lagQuantiles ?? null), model.lag.bounds, options);
      this.use.set(times, [points.map((point) => point.utilisation ?? null)], options);
      this.tasks.set(times, [points.map((point) => point.tasks ?? null)], options);
      blocked.sort((one, other) => other.windows.sum[SUM.blockedSeconds] - one.windows.sum[SUM.blockedSeconds]);
      this.blocked.hidden = !blocked.length;
      rows(this.blocked, ["The loop was blocked by", "Times", "For"], blocked.slice(0, 10).map((route) => [
        route.label, grouped.format(route.windows.sum[SUM.blocked]), showSeconds(route.windows.sum[SUM.blockedSeconds]),
      ]));
    }

    make(section) {
      const grid = make("div", { class: "charts" });
      section.append(grid);
      const names = [{ name: "p50", dash: [] }, { name: "p99", dash: [2, 2] }];
      this.lag = new QuantileChart(grid, "Lag: how much later than asked a timer ran", { height: 130, names });
      this.use = new ShareChart(grid, { title: "Time in which it is busy", series: [{ label: "busy", colour: "--p95" }], height: 130 });
      this.tasks = new Chart(grid, { title: "Tasks", series: [{ label: "tasks", colour: "--p50" }], height: 130 });
      this.blocked = make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr")), make("tbody")));
      section.append(this.blocked);
    }
  }

  /** The hosts that the application calls, the slowest first. */
  function drawOutgoing() {
    const section = byId("outgoing");
    const hosts = [...model.hosts.values()].filter((host) => host.windows);
    section.hidden = !hosts.length;
    const latency = (host) => host.quantile(0.95) ?? -1;
    hosts.sort((one, other) => latency(other) - latency(one) || (one.label < other.label ? -1 : 1));
    rows(section, ["Host", "Calls/s", "Failed", "p50", "p95", "p99", "In progress"], hosts.map((host) => {
      const { sum } = host.windows;
      const failed = host.count() ? (sum[C5XX] + sum[SUM.failed]) / host.count() : null;
      const times = [0.5, 0.95, 0.99].map((q) => showSeconds(host.quantile(q), host.bounds));
      return [host.label, showNumber(perSecond(host.count())), [showShare(failed), failed ? "bad" : ""], ...times, showCount(host.gauges[0])];
    }));
  }

  // The reasons of hr_prometheus_worker_restarts_total.
  const RESTART_WORDS = {
    timeout: "did not answer in time",
    reload: "replaced by a reload",
    "max-requests": "had served its maximum of requests",
    exit: "ended by itself",
    signal: "killed by a signal",
  };

  class ProcessSection {
    constructor() {
      this.cpu = new Map(); // worker → the last times and CPU seconds
    }

    draw() {
      const up = model.ofWorkers("hr_prometheus_worker_up");
      const started = model.ofWorkers("process_start_time_seconds");
      const memory = model.ofWorkers("process_resident_memory_bytes");
      const descriptors = model.ofWorkers("process_open_fds");
      const names = [...new Set([...up.keys(), ...(up.size ? [] : started.keys()), ...(up.size ? [] : memory.keys())])];
      const section = byId("processes");
      section.hidden = !names.length;
      write(byId("processes-title"), up.size ? "Workers" : "Process");
      names.sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
      const age = (worker) => (started.has(worker) && model.serverTime ? showDuration(Math.max(0, model.serverTime - started.get(worker))) : "–");
      const numbers = (worker) => [age(worker), showShare(this.use(worker)), showBytes(memory.get(worker)), showCount(descriptors.get(worker))];
      const common = ["Up for", "CPU", "Memory", "Open files"];
      if (!up.size) return rows(section, ["", ...common], names.map((worker) => [worker ? `worker ${worker}` : "this process", ...numbers(worker)]));
      rows(section, ["Worker", "State", "Restarts", "Why", ...common], names.map((worker) => {
        const why = model.restarts.keys
          .map((key, index) => [...key.split("\n"), model.restarts.last[index]])
          .filter(([slot, , number]) => slot === worker && number);
        const total = why.reduce((sum, [, , number]) => sum + number, 0);
        const state = up.get(worker) ? ["up", "up"] : ["down", "down"];
        return [worker, state, grouped.format(total), why.map(([, reason, number]) => `${grouped.format(number)} ${RESTART_WORDS[reason] ?? reason}`).join(", ") || "–", ...numbers(worker)];
      }));
    }

    /** Return the share of a processor that a worker has used in the last seconds. */
    use(worker) {
      const index = model.cpu.keys.indexOf(worker);
      if (index < 0) return null;
      const history = this.cpu.get(worker) ?? [];
      const last = history[history.length - 1];
      if (last?.time !== model.lastPoll) history.push({ time: model.lastPoll, value: model.cpu.last[index] });
      while (history.length > 2 && history[1].time < model.lastPoll - NOW_S) history.shift();
      this.cpu.set(worker, history);
      const seconds = model.lastPoll - history[0].time;
      const used = model.cpu.last[index] - history[0].value;
      if (used < 0) history.splice(0, history.length - 1); // a new process
      return seconds > 0 && used >= 0 ? used / seconds : null;
    }
  }

  const MOST_RECENT = 50;

  /** Show the latest slow and failed requests. Without an answer it is their section alone that says so. */
  async function showRecent() {
    try {
      drawRecent(JSON.parse((await get("?file=recent.json")).text));
    } catch (error) {
      byId("recent").hidden = false;
      write(byId("recent-count"), `No answer: ${reasonOf(error)}. Trying again.`);
    }
  }

  /** The latest slow and failed requests, the latest first. */
  function drawRecent(requests) {
    const section = byId("recent");
    section.hidden = !requests.length;
    write(byId("recent-count"), requests.length > MOST_RECENT ? `the latest ${MOST_RECENT} of ${requests.length}` : "");
    rows(section, ["Request", "Time", "Status", "Took", "First byte", "Received", "Sent", "Trace"], requests.slice(0, MOST_RECENT).map((each) => [
      visible(`${each.method} ${each.path}${each.host ? ` (${each.host})` : ""}`), [showTime(each.time), null, moment.format(each.time * 1000)], [each.status, each.status[0] === "5" ? "bad" : ""],
      showSeconds(each.seconds), showSeconds(each.first_byte_seconds), showBytes(each.request_bytes), showBytes(each.response_bytes), each.trace ?? "–",
    ]));
  }

  function drawHeader() {
    const target = config.target || location.host;
    write(byId("target"), target);
    document.title = `${target} – status`;
    const workers = model.ofWorkers("hr_prometheus_worker_up").size;
    const started = [...model.ofWorkers("process_start_time_seconds").values()];
    const parts = [
      config.version && `hr-prometheus ${config.version}`,
      model.python,
      workers && `${workers} worker${workers === 1 ? "" : "s"}`,
      started.length && model.serverTime && `up ${showDuration(Math.max(0, model.serverTime - Math.min(...started)))}`,
    ];
    write(byId("about"), parts.filter(Boolean).join(" · "));
    if (config.metrics) byId("metrics").setAttribute("href", config.metrics);
    byId("raw").setAttribute("href", query(model.names()));
  }

  function drawNotices() {
    const notices = model.resets.slice(-1).map((time) => `The counters started again from 0 at ${showTime(time)}: the server was restarted. What the page shows continues.`);
    const down = [...model.ofWorkers("hr_prometheus_worker_up")].filter(([, isUp]) => !isUp).map(([worker]) => worker);
    if (down.length) notices.push(`Worker ${down.join(", ")} does not serve.`);
    for (const [index, key] of model.own.keys.entries()) {
      const number = model.own.last[index];
      if (!number) continue;
      const what = key.startsWith("where=") ? `hr-prometheus has raised exceptions that no client has seen, ${key}` : `Requests were counted under their template because the route has used its path budget: ${key}`;
      notices.push(`${what} (${grouped.format(number)} since the start)`);
    }
    const text = notices.join("\n");
    const element = byId("notices");
    if (element.written === text) return;
    element.written = text;
    element.replaceChildren(...notices.map((notice) => make("li", {}, notice)));
  }

  let page = null;
  const table = new Table();

  function makePage() {
    const card = () => {
      const element = make("div", { class: "card" });
      byId("charts").append(element);
      return element;
    };
    return {
      tiles: new Tiles(),
      attention: new Attention(),
      rates: new StatusChart(card(), "Requests"),
      latencies: new QuantileChart(card(), "Latency", { unit: "estimated from buckets" }),
      heatmap: new Heatmap(card()),
      progress: new Chart(card(), { title: "In progress", series: [{ label: "requests", colour: "--p95" }] }),
      loop: new LoopSection(),
      processes: new ProcessSection(),
    };
  }

  function drawAll() {
    if (model.lastPoll === null || model.isReading) return;
    page ??= makePage();
    const points = model.shown();
    const times = points.map((point) => point.time);
    const options = { range: model.axis(), resets: model.resets };
    const routes = model.measured();
    drawHeader();
    drawNotices();
    page.tiles.draw(totalOf(routes));
    page.attention.draw(routes);
    page.rates.setRates(times, points.map((point) => point.rates), options);
    page.latencies.setQuantiles(times, points.map((point) => point.quantiles), model.bounds, options);
    page.heatmap.setPoints(points, model.bounds, options);
    page.progress.set(times, [points.map((point) => point.inProgress ?? null)], options);
    table.draw();
    page.loop.draw(options, points, times);
    drawOutgoing();
    page.processes.draw();
  }

  function totalOf(routes) {
    const counts = new Float64Array(CLASSES.length);
    const buckets = new Float64Array(model.bounds.length);
    for (const route of routes) {
      const { sum } = route.windows;
      for (let index = 0; index < counts.length; index++) counts[index] += sum[index];
      model.addBuckets(buckets, route, sum);
    }
    return { counts, buckets, count: counts.reduce((sum, value) => sum + value, 0) };
  }

  // -- asking

  function query(names) {
    return `?file=metrics${names.map((name) => `&name[]=${encodeURIComponent(name)}`).join("")}`;
  }

  /** Return the answer to a query of this page, and when it came.

  A busy server lets a request wait, then reads its counters and answers. So the counters are those of the answer's time.
  The URL is not a relative one, as the browser refuses those if the page's own has a user and password. */
  async function get(search) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
    try {
      const response = await fetch(location.origin + location.pathname + search, { signal: controller.signal, cache: "no-store", credentials: "same-origin" });
      const time = now();
      if (!response.ok) throw new Error(`it answers ${response.status} ${response.statusText}`.trim());
      return { text: await response.text(), time, date: Date.parse(response.headers.get("Date") ?? "") / 1000 };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Return why there is no answer. */
  function reasonOf(error) {
    if (error.name === "AbortError") return `no answer within ${TIMEOUT_MS / 1000} s`;
    if (error instanceof TypeError) return "the server cannot be reached";
    return error instanceof SyntaxError ? "its answer is something else" : error.message;
  }

  /** Asks for the metrics: each second, less often while its tab is hidden, and again and again without an answer. */
  class Poller {
    constructor() {
      this.isPaused = false;
      this.isAsking = false;
      this.failures = 0;
      this.polls = 0;
      this.hasLines = false; // whether a scrape had any
      this.timer = 0;
    }

    async poll() {
      if (this.isPaused || this.isAsking) return;
      clearTimeout(this.timer);
      this.isAsking = true;
      const began = performance.now();
      try {
        // Where no request metrics are seen, they may have a prefix. A whole scrape tells it, but is not for every second.
        const isWhole = !model.naming.set && this.polls % 5 === 1;
        const { text, time, date } = await get(query(isWhole ? [] : model.names()));
        // The page can do without it, so it is no failure of the metrics.
        if (!config.version || this.failures) config = await get("?file=config.json").then((answer) => JSON.parse(answer.text)).catch(() => config);
        const received = performance.now();
        if (this.isPaused) return;
        // A scrape is never cut off within a line, and has something as soon as one before had.
        if (text ? !text.endsWith("\n") : this.hasLines) throw new NoScrape();
        model.serverTime = date;
        const lines = await model.read(text, time);
        if (!this.hasLines) await breathe();
        this.hasLines ||= lines > 0;
        this.failures = 0;
        this.polls++;
        this.writeState();
        if (!document.hidden) drawAll();
        this.writeCost(lines, text.length, performance.now() - received);
        if (this.polls % 5 === 1 && !document.hidden) showRecent(); // without waiting for it
      } catch (error) {
        this.failures++;
        model.miss();
        this.writeState(error);
      } finally {
        this.isAsking = false;
        if (!this.isPaused) this.schedule(performance.now() - began);
      }
    }

    schedule(spent) {
      // A server that takes long for an answer is asked less often, so that it is busy with something else most of the time.
      const often = Math.max(POLL_MS * Math.max(1, this.failures), 4 * spent);
      const slower = document.hidden ? HIDDEN_POLL_MS : Math.min(often, HIDDEN_POLL_MS);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.poll(), Math.max(50, slower - spent));
    }

    pause(isPaused) {
      this.isPaused = isPaused;
      write(byId("pause"), isPaused ? "Go on" : "Pause");
      clearTimeout(this.timer);
      this.writeState();
      if (isPaused) model.miss();
      else this.poll();
    }

    writeState(error) {
      const state = byId("state");
      const isFailed = error !== undefined;
      state.className = this.isPaused ? "paused" : isFailed ? "failed" : "live";
      mark(document.body, "stale", isFailed && model.lastPoll !== null);
      const since = model.lastPoll === null ? "" : ` Last answer at ${showTime(model.lastPoll)}.`;
      write(state, this.isPaused ? `Paused at ${showTime(now())}` : isFailed ? `No metrics: ${reasonOf(error)}. Trying again.${since}` : "Live");
    }

    /** Show what the last poll has cost; tests count the polls by it. */
    writeCost(lines, bytes, milliseconds) {
      Object.assign(document.body.dataset, { polls: this.polls, lines, milliseconds: milliseconds.toFixed(1) });
      write(byId("cost"), `Last poll: ${grouped.format(lines)} lines, ${showBytes(bytes)}, shown in ${milliseconds.toFixed(0)} ms`);
    }
  }

  const poller = new Poller();

  byId("pause").addEventListener("click", () => poller.pause(!poller.isPaused));
  byId("range").addEventListener("change", (event) => {
    model.setRange(Number(event.target.value));
    drawAll();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    drawAll();
    poller.poll();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours.clear();
    for (const chart of charts) chart.recolour();
    drawAll();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches?.('input[type="search"]');
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      const route = table.open;
      table.close();
      table.draw();
      if (!isTyping) route?.row?.button.focus();
    } else if (!isTyping && event.key === "/") {
      event.preventDefault();
      byId("filter").focus();
    } else if (!isTyping && event.key === "p") {
      poller.pause(!poller.isPaused);
    }
  });

  write(byId("state"), "Asking for the metrics");
  byId("state").className = "waiting";
  poller.poll();
})();
