//! The solver: cvc5, in a process of its own, asked through Cedar's symbolic compiler.
//!
//! Owns: starting it, bounding every question, and ending it. Must never: take silence, an error or `unknown` for an
//! answer. Look next: `domain::access::proving`, whose questions these are; docs/decisions/0016.

use crate::domain::access::proving::{Doubt, Model, Question, Solve};
use crate::limits;
use cedar_policy::{EntityTypeName, EntityUid, Schema};
use cedar_policy_symcc::err::Error;
use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, SymEnv};
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tokio::process::Command;
use tokio::runtime::Runtime;

/// A running cvc5.
pub struct Solver {
    program: String,
    runtime: Runtime,
    compiler: Option<CedarSymCompiler<LocalSolver>>,
    environments: HashMap<(EntityTypeName, EntityUid, EntityTypeName), SymEnv>,
}

impl fmt::Debug for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Solver").field("program", &self.program).finish_non_exhaustive()
    }
}

/// The solver cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSolver(pub String);

impl fmt::Display for NoSolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the solver cvc5 cannot be run ({}): install the package `cvc5`, or name it in CVC5",
            self.0
        )
    }
}

impl Solver {
    /// Starts cvc5: a name on the path, or a file.
    ///
    /// # Errors
    /// [`NoSolver`]: it cannot be run.
    pub fn start(program: &str) -> Result<Self, NoSolver> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| NoSolver(error.kind().to_string()))?;
        let mut solver =
            Self { program: program.to_owned(), runtime, compiler: None, environments: HashMap::new() };
        solver.compiler = Some(solver.launch().map_err(NoSolver)?);
        Ok(solver)
    }

    fn launch(&self) -> Result<CedarSymCompiler<LocalSolver>, String> {
        let _in_runtime = self.runtime.enter();
        let mut command = Command::new(&self.program);
        let limit = format!("--tlimit-per={}", limits::SOLVER_QUESTION_MILLIS);
        command.args(["--lang", "smt", &limit]).kill_on_drop(true);
        let process = LocalSolver::from_command(&mut command).map_err(|error| one_line(&error))?;
        CedarSymCompiler::new(process).map_err(|error| one_line(&error))
    }

    fn compiled(&mut self, question: &Question, schema: &Schema) -> Result<CompiledPolicy, Doubt> {
        let environment = &question.environment;
        let key =
            (environment.principal().clone(), environment.action().clone(), environment.resource().clone());
        let symbolic = match self.environments.get(&key) {
            Some(known) => known.clone(),
            None => {
                let made = SymEnv::new(schema, environment).map_err(|error| Doubt(one_line(&error)))?;
                self.environments.insert(key, made.clone());
                made
            }
        };
        CompiledPolicy::compile_with_custom_symenv(&question.policy, environment, schema, symbolic)
            .map_err(|error| Doubt(one_line(&error)))
    }

    /// Asks within the time there is. After any error the process is another one: what it still holds is not known.
    fn within_time<T>(
        &mut self,
        ask: impl AsyncFnOnce(&mut CedarSymCompiler<LocalSolver>) -> Result<T, Error>,
    ) -> Result<T, Doubt> {
        let mut compiler = match self.compiler.take() {
            Some(compiler) => compiler,
            None => self.launch().map_err(Doubt)?,
        };
        let silence = Duration::from_secs(limits::SOLVER_SILENCE_SECONDS);
        let answer = self.runtime.block_on(async { tokio::time::timeout(silence, ask(&mut compiler)).await });
        match answer {
            Ok(Ok(answer)) => {
                self.compiler = Some(compiler);
                Ok(answer)
            }
            Ok(Err(error)) => Err(Doubt(one_line(&error))),
            Err(_elapsed) => Err(Doubt("the solver did not answer in time".to_owned())),
        }
    }
}

impl Solve for Solver {
    fn example(&mut self, question: &Question, schema: &Schema) -> Result<Option<Model>, Doubt> {
        let compiled = self.compiled(question, schema)?;
        let found = self.within_time(async |compiler: &mut CedarSymCompiler<LocalSolver>| {
            compiler.check_never_matches_with_counterexample_opt(&compiled).await
        })?;
        Ok(found.map(|env| Model { request: env.request, entities: env.entities }))
    }

    fn may_fail(&mut self, question: &Question, schema: &Schema) -> Result<bool, Doubt> {
        let compiled = self.compiled(question, schema)?;
        let never = self.within_time(async |compiler: &mut CedarSymCompiler<LocalSolver>| {
            compiler.check_never_errors_opt(&compiled).await
        })?;
        Ok(!never)
    }
}

/// An error with its causes, without line breaks: the solver's words may have some.
fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}
