// A real OpenID Connect provider (npm oidc-provider) with a login by password and TOTP, for the journey tests.
// Loopback only. Prints `ready <issuer>` when it answers. Environment: PORT, AUDIENCE.
import { createHmac, generateKeyPairSync, randomBytes } from 'node:crypto';
import { Provider } from 'oidc-provider';

const port = Number(process.env.PORT);
const audience = process.env.AUDIENCE;
const issuer = `http://127.0.0.1:${port}`;

const signingKey = (type, options, header) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), use: 'sig', ...header,
});

// User name, password and TOTP secret are all derived from the role: these are test logins, not people.
const roles = {
  nurse: { claim: 'hosp-rn', fhirUser: 'Practitioner/nurse', purpose: 'TREAT' },
  physician: { claim: 'hosp-md', fhirUser: 'Practitioner/physician', purpose: 'TREAT' },
};
const secretOf = (user) => Buffer.from(`totp-secret-of-${user}`.padEnd(20, '.'));

// RFC 6238 with RFC 4226 truncation, six digits, thirty seconds.
function oneTimeCode(secret, at) {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(at / 30_000)));
  const digest = createHmac('sha1', secret).update(counter).digest();
  const offset = digest.at(-1) & 0x0f;
  return String((digest.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

const acceptedCode = (user, code) =>
  [-30_000, 0, 30_000].some((skew) => oneTimeCode(secretOf(user), Date.now() + skew) === code);

const provider = new Provider(issuer, {
  jwks: {
    keys: [
      signingKey('rsa', { modulusLength: 2048 }, { kid: 'rsa-1', alg: 'RS256' }),
      signingKey('ec', { namedCurve: 'P-256' }, { kid: 'ec-1', alg: 'ES256' }),
    ],
  },
  clients: [{
    client_id: 'chart-app', client_secret: 'chart-app-secret', redirect_uris: ['http://127.0.0.1:9/callback'],
    grant_types: ['authorization_code'], response_types: ['code'], token_endpoint_auth_method: 'client_secret_basic',
  }],
  acrValues: ['urn:chartgate:mfa', 'urn:chartgate:password'],
  scopes: ['openid'],
  findAccount: (_ctx, id) => (roles[id] ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
  features: {
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: '', audience, accessTokenTTL: 300, accessTokenFormat: 'jwt',
        jwt: { sign: { alg: process.env.ALGORITHM ?? 'RS256' } },
      }),
    },
  },
  extraTokenClaims: (ctx, token) => {
    const code = ctx.oidc.entities.AuthorizationCode;
    const role = roles[token.accountId];
    return code && role && {
      acr: code.acr, amr: code.amr, auth_time: code.authTime, sid: code.sessionUid,
      roles: [role.claim], fhirUser: role.fhirUser, purpose_of_use: [role.purpose],
    };
  },
  cookies: { keys: [randomBytes(16).toString('hex')] },
  pkce: { required: () => true },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
});

async function formOf(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return new URLSearchParams(text);
}

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/') || ctx.method !== 'POST') return next();
  const { prompt, params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  let result;
  if (prompt.name === 'login') {
    const form = await formOf(ctx.req);
    const user = form.get('user');
    const code = form.get('code');
    if (!roles[user] || form.get('password') !== `password-of-${user}` || (code && !acceptedCode(user, code))) {
      ctx.status = 401;
      return undefined;
    }
    const second = Boolean(code);
    result = { login: {
      accountId: user, remember: false,
      acr: second ? 'urn:chartgate:mfa' : 'urn:chartgate:password', amr: second ? ['pwd', 'otp', 'mfa'] : ['pwd'],
    } };
  } else {
    const grant = (grantId && await provider.Grant.find(grantId))
      || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    grant.addResourceScope(audience, '');
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: prompt.name !== 'login' });
});

provider.on('server_error', (_ctx, error) => console.error('server_error', error));
provider.on('grant.error', (_ctx, error) => console.error('grant.error', error.error_description ?? error.message));
const server = provider.listen(port, '127.0.0.1', () => console.log('ready', issuer));
process.on('SIGTERM', () => server.close(() => process.exit(0)));
// Ends with the test that started it: its standard input closes.
process.stdin.resume().on('end', () => process.exit(0));
