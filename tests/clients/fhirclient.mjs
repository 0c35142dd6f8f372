// npm fhirclient (SMART), as a backend uses it that already has a token.
import FHIR from 'fhirclient';
import { base, journey, token } from './journey.mjs';

const nothing = { get: async () => undefined, set: async () => undefined, unset: async () => true };
const request = { headers: {}, url: '/', connection: {} };
const client = FHIR(request, {}, nothing).client({
  serverUrl: base, tokenResponse: { access_token: token, token_type: 'Bearer' },
});

await journey('Smartfamily', {
  create: (record) => client.create(record),
  read: (id) => client.request(`Patient/${id}`),
  update: (record) => client.update(record),
  remove: (id) => client.delete(`Patient/${id}`),
  refused: (error) => error.status ?? error.statusCode,
  search: (family) => client.request(`Patient?family=${family}&_count=2`, { pageLimit: 0, flat: true }),
});
