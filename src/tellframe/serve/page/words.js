// Figures in words, as the report writes them.

export function percent(probability) {
  if (probability === null || probability === undefined) return "-";
  const share = 100 * probability;
  if (share < 0.1) return "<0.1 %";
  if (share > 99.9) return ">99.9 %";
  return `${share.toFixed(1)} %`;
}

export function clock(time) {
  const tenths = Math.max(0, Math.floor(time * 10 + 0.505)); // as the report rounds
  const minutes = Math.floor(tenths / 600);
  const rest = (tenths % 600) / 10;
  if (!minutes) return `${rest.toFixed(1)} s`;
  const tail = rest.toFixed(1).padStart(4, "0");
  const hours = Math.floor(minutes / 60);
  return hours
    ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${tail}`
    : `${minutes}:${tail}`;
}

export function period(start, end) {
  return clock(start) === clock(end) ? `at ${clock(start)}` : `${clock(start)} to ${clock(end)}`;
}

export function size(bytes) {
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(1)} ${unit}`;
  }
  return `${bytes} bytes`;
}

export function count(number, noun, plural = `${noun}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
}

/** A span in the largest unit in which it is whole, and never longer than it is. */
export function duration(seconds) {
  if (seconds < 60) return count(Math.floor(seconds), "second");
  if (seconds % 3600 === 0) return count(seconds / 3600, "hour");
  if (seconds % 60 === 0 || seconds > 600) return count(Math.floor(seconds / 60), "minute");
  return count(Math.floor(seconds), "second");
}
