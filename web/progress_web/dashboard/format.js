/** Texts for numbers, times and progress. */

/** @import {Operation, Progress} from '../client/types.js' */

import { plain } from './plain.js';

/** @param {unknown} value @param {number} [digits] maximum digits after the decimal point */
export function number(value, digits = 1) {
  return typeof value === 'number' ? value.toLocaleString('en', { maximumFractionDigits: digits }) : '';
}

/**
 * Return the progress in percent, 0 to 100, or null if it is unknown.
 * @param {{percent?: number|null, current?: number|null, total?: number|null}|null|undefined} of
 */
export function percentOf(of) {
  const { percent, current, total } = of ?? {};
  if (typeof percent === 'number') return clamp(percent);
  if (typeof current === 'number' && typeof total === 'number' && total > 0) return clamp((100 * current) / total);
  return null;
}

/** @param {number} percent */
function clamp(percent) {
  return Math.min(100, Math.max(0, percent));
}

/** Whole percent, rounded down, so that 100 % means complete. @param {number|null} percent */
export function percentText(percent) {
  return percent === null ? '' : `${Math.floor(percent)} %`;
}

/**
 * Return the percentage to show: always 100 after success, whatever was counted last.
 * @param {string} status @param {number|null} percent
 */
export function reached(status, percent) {
  return status === 'succeeded' ? 100 : percent;
}

/**
 * Return the percentage as text, or nothing for a status after which it no longer changes, such as failed.
 * @param {string} status @param {number|null} percent
 */
export function statusPercentText(status, percent) {
  return ['failed', 'cancelled', 'skipped', 'unfinished'].includes(status) ? '' : percentText(reached(status, percent));
}

/**
 * "42 of 100 rows", "42 rows", or nothing.
 * @param {{current?: number|null, total?: number|null, unit?: string|null}|null|undefined} of
 */
export function countText(of) {
  const { current, total, unit } = of ?? {};
  if (typeof current !== 'number') return '';
  const count = typeof total === 'number' ? `${number(current)} of ${number(total)}` : number(current);
  return unit ? `${count} ${unit}` : count;
}

/**
 * Return the rate and the time left of a running operation. They are unknown if it is stalled or stops.
 * @param {Operation} operation
 */
export function paceTexts({ status, progress }) {
  return status === 'running' ? [rateText(progress), etaText(progress)] : [];
}

/** @param {Progress|null} progress */
export function rateText(progress) {
  if (typeof progress?.rate !== 'number') return '';
  return `${number(progress.rate)}${progress.unit ? ` ${progress.unit}` : ''}/s`;
}

/** @param {Progress|null} progress */
export function etaText(progress) {
  return typeof progress?.eta_ms === 'number' ? `${durationText(progress.eta_ms)} left` : '';
}

/** @param {number} ms */
export function durationText(ms) {
  const s = Math.round(ms / 1000);
  if (ms < 9950) return `${number(Math.max(0, ms) / 1000)} s`;
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor(s / 3600) % 24} h`;
}

/** The time of day; with the date if it is not today. @param {number|string|null} at @param {number} [now] */
export function timeText(at, now = Date.now()) {
  if (at === null) return '';
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return '';
  const [hours, minutes, seconds] = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two);
  const time = `${hours}:${minutes}:${seconds}`;
  if (date.toDateString() === new Date(now).toDateString()) return time;
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${time}`;
}

/** @param {number} value */
function two(value) {
  return String(value).padStart(2, '0');
}

/** @param {Operation} operation */
export function titleOf(operation) {
  return plain(operation.title ?? '').trim() || operation.id;
}

/** How long the operation took, or has taken until its last change. @param {Operation} operation */
export function tookText(operation) {
  if (!operation.started_at) return '';
  const ms = Date.parse(operation.finished_at ?? operation.updated_at) - Date.parse(operation.started_at);
  return Number.isNaN(ms) ? '' : durationText(ms);
}
