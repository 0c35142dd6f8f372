// npm @medplum/core: its client against any FHIR server.
import { MedplumClient } from '@medplum/core';
import { base, journey, token } from './journey.mjs';

const { origin, pathname } = new URL(base);
const client = new MedplumClient({
  baseUrl: `${origin}/`, fhirUrlPath: pathname.slice(1), accessToken: token, cacheTime: 0, autoBatchTime: 0,
});

await journey('Plumfamily', {
  create: (record) => client.createResource(record),
  read: (id) => client.readResource('Patient', id),
  update: (record) => client.updateResource(record),
  remove: (id) => client.deleteResource('Patient', id),
  // This client keeps the OperationOutcome of a refusal, not its HTTP status.
  refused: (error) => (error.outcome.issue[0].code === 'not-found' ? 404 : 500),
  async search(family) {
    const found = [];
    for await (const page of client.searchResourcePages('Patient', { family, _count: 2 })) {
      found.push(...page);
    }
    return found;
  },
});
