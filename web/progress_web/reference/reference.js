/** The API reference page. It shows the content of openapi.json, and loads nothing from other sites. */

import { byId, el, say } from '../dashboard/dom.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** @param {any} schema @returns {string} a short description of the type */
function words(schema) {
  if (schema.$ref) return schema.$ref.split('/').at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ one) => JSON.stringify(one)).join(' | ');
  const any = schema.anyOf ?? schema.oneOf;
  if (any) return any.map(words).join(' | ');
  return schema.type === 'array' ? `list of ${words(schema.items ?? {})}` : schema.type ?? 'anything';
}

/** @param {string[]} titles @param {string[][]} rows */
function table(titles, rows) {
  const head = el('tr', {}, ...titles.map((title) => el('th', { scope: 'col' }, title)));
  const body = rows.map((cells) => el('tr', {}, ...cells.map((cell) => el('td', {}, cell))));
  return el('table', {}, el('thead', {}, head), el('tbody', {}, ...body));
}

/** @param {any} content @returns {string} */
function types(content) {
  return Object.entries(content ?? {}).map(([type, { schema }]) => `${type}: ${words(schema ?? {})}`).join('; ');
}

/** @param {string} path @param {string} method @param {any} call */
function entry(path, method, call) {
  const parameters = (call.parameters ?? []).map((/** @type {any} */ it) => (
    [it.name, it.in, words(it.schema ?? {}), it.description ?? '']
  ));
  const answers = Object.entries(call.responses).map(([status, it]) => [status, it.description ?? '', types(it.content)]);
  const parts = [el('p', { class: 'plain' }, call.description ?? '')];
  if (parameters.length) parts.push(table(['parameter', 'in', 'type', 'description'], parameters));
  if (call.requestBody) parts.push(el('p', {}, `Body: ${types(call.requestBody.content)}`));
  parts.push(table(['status', 'description', 'body'], answers));
  for (const { label, source } of call['x-codeSamples'] ?? []) parts.push(el('p', {}, label), el('pre', {}, source));
  const what = el('summary', {}, el('b', {}, method.toUpperCase()), el('code', {}, path), ` ${call.summary ?? ''}`);
  return el('details', { class: 'call', id: call.operationId }, what, ...parts);
}

/** @param {string} name @param {any} schema */
function model(name, schema) {
  return el('details', { class: 'call', id: name }, el('summary', {}, el('code', {}, name)),
    el('pre', {}, JSON.stringify(schema, null, 2)));
}

const answer = await fetch('openapi.json');
const api = await answer.json();
say(byId('title'), `${api.info.title} ${api.info.version}`);
say(byId('about'), api.info.description);
const calls = Object.entries(api.paths).flatMap(([path, described]) => (
  METHODS.filter((method) => described[method]).map((method) => entry(path, method, described[method]))
));
const models = Object.entries(api.components.schemas).map(([name, schema]) => model(name, schema));
byId('calls').append(...calls, el('h2', {}, 'Schemas'), ...models);
if (location.hash) document.getElementById(location.hash.slice(1))?.setAttribute('open', '');
